"""Greedy answers of `transformers`, one by one in float32: what vLLM is compared with. Run by .venv-llm, not a test.

    python reference.py MODEL TOKENS < prompts.json > answers.json
"""

import json
import os
import sys

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TRANSFORMERS_VERBOSITY="error")
import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

folder, tokens = sys.argv[1], int(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(folder)
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
answers = []
for prompt in json.load(sys.stdin):
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        out = model.generate(**asked, do_sample=False, max_new_tokens=tokens)[0, asked["input_ids"].shape[1] :]
    answers.append({"ids": out.tolist(), "text": tokenizer.decode(out, skip_special_tokens=True)})
json.dump(answers, sys.stdout)
