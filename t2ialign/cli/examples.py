"""The examples at the end of each verb's --help: a sentence, and the command that it describes."""

EXAMPLES = {
    "demo": r"""
  Run the demo, which takes some seven minutes on a laptop:
    t2ialign demo
  Align the small Stable Diffusion 3 instead, in another folder:
    t2ialign demo --model toy-flow --output runs/demo_flow
  Repeat it with other prompts, samples and training noise:
    t2ialign demo --seed 1 --output runs/demo_seed_1
""",
    "evaluate": r"""
  Score the images of t2ialign sample with the exact judge of the toy model:
    t2ialign evaluate runs/sample --reward toy-oracle
  Compare an aligned model with its base model, image by image:
    t2ialign evaluate runs/aligned --baseline runs/base --reward hpsv2.1 --output runs/aligned_vs_base
  Continue an evaluation that was interrupted:
    t2ialign evaluate runs/aligned --reward hpsv2.1 --resume latest
""",
    "export": r"""
  Write a LoRA for ComfyUI, A1111 or Forge:
    t2ialign export runs/mine --format kohya -o mine.safetensors
  Convert a LoRA from the web for diffusers:
    t2ialign export downloaded.safetensors --format diffusers -o runs/downloaded
  Merge 0.8 of a LoRA into its base model:
    t2ialign export runs/mine:0.8 --format merged --model my_model.safetensors -o merged.safetensors
""",
    "filter": r"""
  Filter pairs with the published limits of strategy 2:
    t2ialign filter my_pairs/ -o filtered.parquet --rewards aesthetic clipscore-h vqascore
  Apply the strictest published limits to the first 1,000 pairs of a dataset on the Hub:
    t2ialign filter yuvalkirstain/pickapic_v2 --streaming --limit 1000 --strategy 1 -o filtered.parquet \
      --rewards aesthetic clipscore-h vqascore
  Change the limits afterwards, without scoring again:
    t2ialign filter my_pairs/ -o filtered.parquet --rewards aesthetic clipscore saturation \
      --floor -0.5 0 0 --tie 0.2 0.03 0.05 --resume latest
""",
    "keypoints": r"""
  Judge the images of the toy model with its exact oracle:
    t2ialign keypoints runs/sample
  Judge images with a vision-language model, with key points extracted by rules:
    t2ialign keypoints images/ --backend yes_no --weights Qwen/Qwen2.5-VL-7B-Instruct
  Follow the protocol of a benchmark, with a judge behind an OpenAI-compatible server:
    t2ialign keypoints runs/bench --points benchmark.parquet --backend written --weights my-model \
      --url http://localhost:8000/v1
""",
    "pairs": r"""
  Draw 8 images of each prompt, and pair the best with the worst of them:
    t2ialign pairs --model my_model.safetensors --prompts prompts.txt --rewards hpsv2.1 -o pairs.jsonl
  Let three rewards vote on the images of a folder, and take a pair only where two of them agree:
    t2ialign pairs runs/sample --rewards clipscore aesthetic pickscore --min-agreement 0.6 -o pairs.jsonl
  Write likes and dislikes for train kto, from scores that a table has already:
    t2ialign pairs scores.csv --columns votes --likes -o likes.jsonl
""",
    "mix": r"""
  Mix 30 % of one LoRA with 70 % of another:
    t2ialign mix runs/aesthetic runs/faithful --alpha 0.3 -o runs/soup
  Mix a downloaded LoRA with one of yours in equal parts:
    t2ialign mix downloaded.safetensors runs/mine --alpha 0.5 -o runs/half
  Add a tenth of a second LoRA to nine tenths of the first:
    t2ialign mix runs/aesthetic runs/faithful --alpha 0.9 -o runs/mostly_aesthetic
""",
    "monitor": r"""
  Plot the held-out rewards of one run:
    t2ialign monitor runs/aesthetic
  Compare two runs, each trained on the reward that the other one holds out:
    t2ialign monitor runs/clip runs/clip_b -o both.html
  Write the page to a folder of reports:
    t2ialign monitor runs/aesthetic -o reports/aesthetic.html
""",
    "prove": r"""
  Measure all claims about the demo:
    t2ialign prove demo
  Measure the first claim about latent rewards with one seed:
    t2ialign prove lpo --claim 1 --seed 0
  Write the results to a folder of your own:
    t2ialign prove rewards --work runs/mine --output my_proofs
""",
    "recipes": r"""
  List all recipes with their hardware:
    t2ialign recipes
  Print the recipe for a few hundred pairs of your own:
    t2ialign recipes dpo_sd15_small
  Copy a recipe, to change it:
    t2ialign recipes lpo_sd15 > mine.yaml
""",
    "rewrite": r"""
  Rewrite two prompts with rules:
    t2ialign rewrite "a pair of red dogs, no cat" "a lighthouse"
  Rewrite a file of prompts with a language model, to fit the text encoder of a model:
    t2ialign rewrite --prompts prompts.txt --rewriter Qwen/Qwen2.5-0.5B-Instruct \
      --fit my_model.safetensors -o rewrites.jsonl
  Use a model behind an OpenAI-compatible server, and write a page to read:
    t2ialign rewrite --prompts prompts.txt --rewriter my-model --url http://localhost:8000/v1 \
      -o rewrites.jsonl --html rewrites.html
""",
    "sample": r"""
  Render one image with the toy model:
    t2ialign sample "a red circle left of a blue square" --model toy
  Render four images of a prompt with a LoRA at 80 % of its strength:
    t2ialign sample "a lighthouse at dusk" --model my_model.safetensors --lora runs/mine:0.8 -n 4
  Render a file of prompts, each as the best of four rewrites:
    t2ialign sample --prompts prompts.txt --model my_model.safetensors --output runs/best \
      --rewrite rules --best-of 4 --reward imagereward
""",
    "score": r"""
  Score a folder of images, and show the best and the worst:
    t2ialign score images/ --rewards aesthetic,saturation -o scores.csv --html scores.html
  Score images of one prompt:
    t2ialign score images/ --rewards pickscore,clipscore --prompts "a red cat" -o scores.parquet
  Join the tables of four processes:
    t2ialign score --merge scores.rank*-of-4.parquet -o scores.parquet
""",
    "train": r"""
  Align Stable Diffusion 1.5 with a folder of preference pairs, by a recipe:
    t2ialign train dpo -c dpo_sd15_small data=my_pairs/ output=runs/mine
  Continue that run, with a lower learning rate:
    t2ialign train dpo -c dpo_sd15_small data=my_pairs/ output=runs/mine resume=latest lr=1e-5
  List every setting of a method:
    t2ialign train backprop --help
""",
}
"""Verb -> its examples. Those of train METHOD are in the method's config.py."""
