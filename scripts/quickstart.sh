#!/usr/bin/env bash
# From a fresh clone to a trained model: install, make sounds, pre-train, draw. The synthetic sounds
# have labels: fine-tune a classifier from random and from the pre-trained weights, and compare their
# accuracies on held-out clips, with each other and with simple statistics of the sound.
#
#   bash scripts/quickstart.sh                        on synthetic sounds
#   DATA=/folder/of/audio bash scripts/quickstart.sh  on your own: pre-training
#   DATA=/folder/of/audio LAYOUT=folders bash scripts/quickstart.sh  also fine-tuning, each folder
#                                                     a class; other layouts: eat manifest --help
#
# UPDATES=600 and FINETUNING_UPDATES=200 set the lengths of training. A second run skips finished steps; after an interruption
# the same command resumes from the last checkpoint. All output is in .venv, data and runs of this
# repository.
set -euo pipefail

fail() { printf 'quickstart: %s\n' "$1" >&2; exit "${2:-1}"; }
say() { printf '\n== %s\n' "$*"; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
updates=${UPDATES:-600}
finetuning_updates=${FINETUNING_UPDATES:-200}
layout=${LAYOUT:-}
for name in UPDATES=$updates FINETUNING_UPDATES=$finetuning_updates; do
    case ${name#*=} in
    '' | 0* | *[!0-9]*) fail "$name is not a whole number above 0" 2 ;;
    esac
done
if [ -n "${DATA:-}" ]; then
    [ -d "$DATA" ] || fail "DATA=$DATA is not a folder" 2
    audio=$(cd "$DATA" && pwd -P)
    # Folders with the same name in different places must not share a run.
    name=$(basename "$audio" | tr -c 'A-Za-z0-9._\n-' '_')-$(printf '%s' "$audio$layout" | cksum | cut -d ' ' -f 1)
    data=$root/data/$name
    run=$root/runs/quickstart-$name
else
    audio=$root/data/demo/audio
    data=$root/data/demo
    run=$root/runs/quickstart
    layout=folders
fi
picture=$run/quickstart.png
comparison=$run/comparison.png
chart=$run/finetuned/evaluation/classes.png
eat=$root/.venv/bin/eat
trap 'printf "\nquickstart: interrupted; run the same command to resume\n" >&2; exit 130' INT TERM

# Trains with `eat $@`, unless it is done.
train() { # FOLDER UPDATES SUBCOMMAND OPTIONS...
    local folder=$1 updates=$2 began=$SECONDS
    shift 2
    if [ "$(cat "$folder/.trained" 2>/dev/null)" = "$updates" ]; then
        printf '  already done\n'
        return
    fi
    "$eat" "$@" --data "$data" --size tiny --out "$folder" "optimization.max_update=$updates" ||
        fail "training failed, see above"
    printf '%s' "$updates" >"$folder/.trained"
    printf '  %d s\n' $((SECONDS - began))
}

# Fine-tunes a classifier and prints its accuracy on the held-out clips.
classify() { # FOLDER CHECKPOINT
    local folder=$1 start=$updates
    [ "$2" != none ] || start=none
    # A classifier of shorter pre-training is renamed: its run would resume from its own weights.
    if [ -d "$folder" ] && [ "$(cat "$folder/.start" 2>/dev/null)" != "$start" ]; then
        kept=$folder-$(cat "$folder/.start" 2>/dev/null || date +%s)
        printf '  (that of another length of pre-training is now in %s)\n' "$kept"
        mv "$folder" "$kept"
    fi
    mkdir -p "$folder"
    printf '%s' "$start" >"$folder/.start"
    train "$folder" "$finetuning_updates" finetune --checkpoint "$2"
    if [ ! "$folder/evaluation/metrics.json" -nt "$folder/.trained" ]; then
        "$eat" evaluate --checkpoint "$folder/checkpoints/checkpoint_last.pt" --data "$data" \
            --out "$folder/evaluation" >"$folder/evaluation.txt" 2>&1 ||
            fail "the evaluation failed: $(tail -n 1 "$folder/evaluation.txt")"
    fi
    accuracy=$(sed -n 's/.*"accuracy": \([0-9.]*\).*/\1/p' "$folder/evaluation/metrics.json" |
        awk '{ printf "%.1f %%", 100 * $1 }')
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
    case $layout in
    '') labels=() ;;
    folders) labels=(--layout folders --valid 0.25) ;;
    # Its options may follow, as in "esc50 --fold 1": split them.
    # shellcheck disable=SC2206
    *) labels=(--layout $layout) ;;
    esac
    "$eat" manifest "$audio" --out "$data" ${labels[@]+"${labels[@]}"} || fail "the sounds cannot be listed, see above"
fi
# Mean and standard deviation for normalisation. Status 1: damaged clips, which it names.
if [ ! "$data/stats.json" -nt "$data/train.tsv" ]; then
    "$eat" stats "$data" || [ $? = 1 ] || fail "the clips cannot be measured"
fi

say "Pre-training, $updates updates"
if [ -f "$run/.trained" ] && [ "$data/train.tsv" -nt "$run/.trained" ]; then
    printf '  (the sounds have changed since the last run; remove %s to train on them)\n' "$run"
fi
train "$run" "$updates" pretrain
if [ ! "$picture" -nt "$run/.trained" ]; then
    "$eat" plot --run "$run" --out "$picture" >/dev/null
fi

if [ -n "$layout" ]; then
    say "Fine-tuning from random weights, $finetuning_updates updates"
    classify "$run/scratch" none
    from_scratch=$accuracy
    say "Fine-tuning from the pre-trained weights, $finetuning_updates updates"
    classify "$run/finetuned" "$run/checkpoints/checkpoint_last.pt"
    if [ ! "$comparison" -nt "$run/finetuned/.trained" ]; then
        "$eat" plot --run "$run/scratch" "$run/finetuned" --out "$comparison" >/dev/null
    fi
    say "Frozen features and simple statistics, with classifiers that learn in seconds"
    if [ ! "$run/probe/probe.json" -nt "$run/.trained" ]; then
        "$eat" probe --checkpoint "$run/checkpoints/checkpoint_last.pt" --data "$data" --layer -1 \
            --out "$run/probe" >/dev/null 2>"$run/probe.txt" ||
            fail "the probe failed: $(tail -n 1 "$run/probe.txt")"
    fi
    cat "$run/probe/probe.md"
    result="
  accuracy    $accuracy fine-tuned after pre-training, $from_scratch from random weights
  classifier  $run/finetuned/checkpoints/checkpoint_last.pt
  picture     $comparison  (random against pre-trained weights)
  picture     $chart  (confusion matrix)"
fi

cat <<END

Done in $SECONDS s.
  checkpoint  $run/checkpoints/checkpoint_last.pt
  picture     $picture  (losses with reference values; a clip, masks and predictions)${result:-}
Next:
  DATA=/folder/of/your/audio bash scripts/quickstart.sh    pre-train on your own sounds
  .venv/bin/eat report "$run"                              a page on the run, for the browser
  README.md, docs/                                         larger models, GPUs, clusters
END
