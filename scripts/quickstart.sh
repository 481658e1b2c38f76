#!/usr/bin/env bash
# From a fresh clone to a trained model: install, make sounds, pre-train, draw. The synthetic sounds
# have labels: fine-tune a classifier from random and from the pre-trained weights, and compare their
# accuracies on held-out clips.
#
#   bash scripts/quickstart.sh                        on synthetic sounds
#   DATA=/folder/of/audio bash scripts/quickstart.sh  on your own: pre-training only
#
# UPDATES=400 sets the length of pre-training. A second run skips finished steps; after an interruption
# the same command resumes from the last checkpoint. All output is in .venv, data and runs of this
# repository.
set -euo pipefail

fail() { printf 'quickstart: %s\n' "$1" >&2; exit "${2:-1}"; }
say() { printf '\n== %s\n' "$*"; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
updates=${UPDATES:-400}
case $updates in
'' | 0* | *[!0-9]*) fail "UPDATES=$updates is not a whole number above 0" 2 ;;
esac
if [ -n "${DATA:-}" ]; then
    [ -d "$DATA" ] || fail "DATA=$DATA is not a folder" 2
    audio=$(cd "$DATA" && pwd -P)
    # Folders with the same name in different places must not share a run.
    name=$(basename "$audio" | tr -c 'A-Za-z0-9._\n-' '_')-$(printf '%s' "$audio" | cksum | cut -d ' ' -f 1)
    data=$root/data/$name
    run=$root/runs/quickstart-$name
else
    audio=$root/data/demo/audio
    data=$root/data/demo
    run=$root/runs/quickstart
fi
picture=$run/quickstart.png
chart=$run/finetuned/evaluation/classes.png
eat=$root/.venv/bin/eat
trap 'printf "\nquickstart: interrupted; run the same command to resume\n" >&2; exit 130' INT TERM

# Hydra's grammar: within single quotes only the quote and backslashes before it are special.
quote() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/\\\\'/g")"; }

# Prints one short line per update that fairseq logs, at once.
show_progress() { # UPDATES
    local line update loss
    while IFS= read -r line; do
        case $line in
        *'[train_inner]'*'"loss": "'*'"num_updates": "'*)
            update=${line#*\"num_updates\": \"}
            loss=${line#*\"loss\": \"}
            printf '  update %s of %s: loss %s\n' "${update%%\"*}" "$1" "${loss%%\"*}"
            ;;
        esac
    done
}

choose_precision() {
    case $("$root/.venv/bin/python" -c '
import torch
if not torch.cuda.is_available():
    print("cpu")
elif torch.cuda.is_bf16_supported():
    print("bf16")
else:
    print("fp16")') in
    cpu) precision=(common.cpu=true common.fp16=false) ;;
    bf16) precision=(common.fp16=false common.bf16=true) ;;
    fp16) precision=(common.fp16=true) ;;
    *) fail "PyTorch does not work: see .venv/bin/python -c 'import torch'" ;;
    esac
}

# Trains, unless it is done. Paths are absolute: hydra changes into the folder of the run.
train() { # FOLDER UPDATES CONFIG OVERRIDES...
    local folder=$1 updates=$2 config=$3 began=$SECONDS
    shift 3
    if [ "$(cat "$folder/.trained" 2>/dev/null)" = "$updates" ]; then
        printf '  already done\n'
        return
    fi
    mkdir -p "$folder"
    printf '  full log: %s\n' "$folder/console.txt"
    if ! "$root/.venv/bin/fairseq-hydra-train" --config-dir "$root/config" --config-name "$config" \
        size=tiny \
        "common.user_dir=$(quote "$root/eat_plugin")" \
        "task.data=$(quote "$data")" \
        "hydra.run.dir=$(quote "$folder")" \
        "checkpoint.save_dir=$(quote "$folder/checkpoints")" \
        "common.tensorboard_logdir=$(quote "$folder/tensorboard")" \
        common.log_format=json \
        "optimization.max_update=$updates" \
        "lr_scheduler.warmup_updates=$((updates / 10))" \
        "${precision[@]}" "$@" 2>&1 | tee "$folder/console.txt" | show_progress "$updates"; then
        tail -n 20 "$folder/console.txt" | sed 's/^/    /' >&2
        fail "training failed; the full log is in $folder/console.txt"
    fi
    printf '%s' "$updates" >"$folder/.trained"
    printf '  %d s\n' $((SECONDS - began))
}

# Fine-tunes a classifier and prints its accuracy on the held-out clips.
classify() { # FOLDER MODEL_PATH OVERRIDES...
    local folder=$1 model=$2
    shift 2
    train "$folder" 100 finetune benchmark=custom "model.model_path=$model" \
        task.target_length=208 "optimization.lr=[0.001]" dataset.batch_size=16 \
        dataset.num_workers=1 model.drop_path_rate=0 model.prediction_mode=MEAN_POOLING "$@"
    if [ ! "$folder/evaluation/metrics.json" -nt "$folder/.trained" ]; then
        "$eat" evaluate --checkpoint "$folder/checkpoints/checkpoint_last.pt" --data "$data" \
            --split eval --out "$folder/evaluation" >"$folder/evaluation.txt" 2>&1 ||
            fail "the evaluation failed: $(tail -n 1 "$folder/evaluation.txt")"
    fi
    accuracy=$(sed -n 's/.*"accuracy": \([0-9.]*\).*/\1/p' "$folder/evaluation/metrics.json")
    printf '  accuracy on held-out clips: %s\n' "$accuracy"
}

say "Installation"
bash "$root/scripts/setup.sh"

say "Sounds"
if [ -n "${DATA:-}" ]; then
    printf '  %s\n' "$audio"
elif [ -f "$data/demo.json" ]; then
    printf '  already made: %s\n' "$audio"
else
    "$eat" demo --out "$data"
fi
# Listed again only if a file or a folder has changed.
if [ ! -f "$data/train.tsv" ] || [ -n "$(find -L "$audio" -newer "$data/train.tsv" -print | head -n 1)" ]; then
    if [ -n "${DATA:-}" ]; then
        "$eat" manifest "$audio" --out "$data"
    else
        "$eat" manifest "$audio" --out "$data" --layout folders --valid 0.25
    fi
fi
# Mean and standard deviation for normalisation. Status 1: damaged clips, which it names.
if [ ! "$data/stats.json" -nt "$data/train.tsv" ]; then
    "$eat" stats "$data" || [ $? = 1 ] || fail "the clips cannot be measured"
fi

say "Pre-training, $updates updates"
choose_precision
if [ -f "$run/.trained" ] && [ "$data/train.tsv" -nt "$run/.trained" ]; then
    printf '  (the sounds have changed since the last run; remove %s to train on them)\n' "$run"
fi
train "$run" "$updates" pretrain
if [ ! "$picture" -nt "$run/.trained" ]; then
    "$eat" plot --run "$run" --out "$picture" >/dev/null
fi

if [ -z "${DATA:-}" ]; then
    say "Fine-tuning from random weights, 100 updates"
    classify "$run/scratch" null model.layer_decay=1
    from_scratch=$accuracy
    say "Fine-tuning from the pre-trained weights, 100 updates"
    classify "$run/finetuned" "$(quote "$run/checkpoints/checkpoint_last.pt")" \
        model.layer_decay=0.75
    result="
  accuracy    $accuracy fine-tuned after pre-training, $from_scratch from random weights
  classifier  $run/finetuned/checkpoints/checkpoint_last.pt
  picture     $chart  (confusion matrix)"
fi

cat <<END

Done in $SECONDS s.
  checkpoint  $run/checkpoints/checkpoint_last.pt
  picture     $picture  (losses over updates; a clip and its masks)${result:-}
Next:
  DATA=/folder/of/your/audio bash scripts/quickstart.sh    pre-train on your own sounds
  .venv/bin/tensorboard --logdir "$run/tensorboard"        live curves
  README.md, docs/                                         larger models, GPUs, clusters
END
