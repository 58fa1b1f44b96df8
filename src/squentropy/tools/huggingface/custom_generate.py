"""Generate stories longer than the model's context in `transformers`, as squentropy does.

When the context is full, its last half becomes the new context and the story continues from there.
An exported model includes this file as custom_generate/generate.py; transformers runs it instead of
its own `generate` if the model is loaded with trust_remote_code=True.
"""

import torch


@torch.inference_mode()
def generate(model, input_ids, attention_mask=None, **options):
    """Continue each row of `input_ids` (B, T) by up to `max_new_tokens`, or to `max_length`.

    All other options are passed to transformers' own `generate`, which samples the tokens. Returns
    the rows, (B, T + new); those that ended early are padded with the end-of-text token.
    """
    settings = options.get("generation_config") or model.generation_config
    shape, end = model.config, settings.eos_token_id
    block = shape.max_seq_len if shape.model_type == "mpt" else shape.n_positions
    length = options.pop("max_length", settings.max_length) or block
    limit = options.pop("max_new_tokens", settings.max_new_tokens) or length - input_ids.shape[1]
    copies = options.pop("num_return_sequences", settings.num_return_sequences) or 1
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)

    def tell(prompt):
        story, new = prompt, 0
        window = story[-block:]
        while new < limit:
            # The last sampled token is not fed back, so one more than the context fits.
            step = min(limit - new, block + 1 - len(window))
            drawn = type(model).generate(
                model,
                window[None],
                attention_mask=torch.ones_like(window[None]),
                max_length=len(window) + step,
                max_new_tokens=None,
                **options,
            )[0, len(window) :]
            story, new = torch.cat((story, drawn)), new + len(drawn)
            if drawn[-1] == end:
                break
            window = story[-(block // 2) :]
        return story[len(prompt) :]

    rows = [ids[mask.bool()] for ids, mask in zip(input_ids, attention_mask) for _ in range(copies)]
    stories = [tell(row) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(stories, batch_first=True, padding_value=end)
    return torch.cat((input_ids.repeat_interleave(copies, 0), padded), 1)
