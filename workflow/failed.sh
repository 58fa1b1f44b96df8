# For a job's command that fails, as `… > LOG 2>&1 || failed LOG`: shows the end of its log and
# appends the log's name to $FAILED, for the summary at the end of the study.
failed() {
    code=$?
    case "$code $(tail -n 1 "$1")" in # the kernel and OpenMP end a program without an explanation
    137* | *libgomp:*)
        echo "squentropy: was killed by the system, probably for lack of memory or threads; use" \
            "fewer --cores, or a smaller train.batch_size or model" >> "$1"
        ;;
    esac
    mkdir -p "$(dirname "$FAILED")"
    echo "$1" >> "$FAILED"
    [ -n "${ENDS_SHOWN:-}" ] || tail -n 5 "$1" >&2
    exit $code
}
