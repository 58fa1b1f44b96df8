# For a job's command that fails, as `… > LOG 2>&1 || failed LOG`: shows the end of its log, and keeps
# the log's name in $FAILED, for the end of the study.
failed() {
    code=$?
    case "$code $(tail -n 1 "$1")" in # the kernel and OpenMP end a program before it can say why
    137* | *libgomp:*)
        echo "squentropy: was ended by the machine, as where memory or threads run out; use fewer" \
            "--cores, or make train.batch_size or the model smaller" >> "$1"
        ;;
    esac
    mkdir -p "$(dirname "$FAILED")"
    echo "$1" >> "$FAILED"
    [ -n "${ENDS_SHOWN:-}" ] || tail -n 5 "$1" >&2
    exit $code
}
