#!/usr/bin/env bash
# From a fresh clone to a pre-trained model: installs, makes or takes sounds, trains, draws.
#
#   bash scripts/quickstart.sh                        on synthetic sounds
#   DATA=/folder/of/audio bash scripts/quickstart.sh  on your own
#
# UPDATES=300 sets the length of the run. A second run repeats nothing that is done; after an
# interruption the same command goes on from the last checkpoint. Everything is written to .venv,
# data and runs in this repository.
set -euo pipefail

fail() { printf 'quickstart: %s\n' "$1" >&2; exit "${2:-1}"; }
say() { printf '\n== %s\n' "$*"; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
updates=${UPDATES:-300}
case $updates in
'' | 0* | *[!0-9]*) fail "UPDATES=$updates is not a whole number from 1 up" 2 ;;
esac
if [ -n "${DATA:-}" ]; then
    [ -d "$DATA" ] || fail "DATA=$DATA is not a folder" 2
    audio=$(cd "$DATA" && pwd -P)
    # Folders of one name in different places must not share a run.
    name=$(basename "$audio" | tr -c 'A-Za-z0-9._\n-' '_')-$(printf '%s' "$audio" | cksum | cut -d ' ' -f 1)
    data=$root/data/$name
    run=$root/runs/quickstart-$name
else
    audio=$root/data/demo/audio
    data=$root/data/demo
    run=$root/runs/quickstart
fi
picture=$run/quickstart.png
console=$run/console.txt
eat=$root/.venv/bin/eat
trap 'printf "\nquickstart: interrupted; the same command goes on from here\n" >&2; exit 130' INT TERM

# Hydra's grammar: within single quotes only the quote itself and backslashes before it are special.
quote() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/\\\\'/g")"; }

# Keeps one short line of each update that fairseq logs, as soon as it is logged.
show_progress() {
    local line update loss
    while IFS= read -r line; do
        case $line in
        *'[train_inner]'*'"loss": "'*'"num_updates": "'*)
            update=${line#*\"num_updates\": \"}
            loss=${line#*\"loss\": \"}
            printf '  update %s of %s: loss %s\n' "${update%%\"*}" "$updates" "${loss%%\"*}"
            ;;
        esac
    done
}

train() {
    local device precision
    device=$("$root/.venv/bin/python" -c '
import torch
if not torch.cuda.is_available():
    print("cpu")
elif torch.cuda.is_bf16_supported():
    print("bf16")
else:
    print("fp16")') || return
    case $device in
    cpu) precision=(common.cpu=true common.fp16=false) ;;
    bf16) precision=(common.fp16=false common.bf16=true) ;;
    fp16) precision=(common.fp16=true) ;;
    esac
    printf '  on %s; the whole log: %s\n' "$device" "$console"
    # Absolute paths: hydra changes into the folder of the run.
    "$root/.venv/bin/fairseq-hydra-train" --config-dir "$root/config" --config-name pretrain \
        size=tiny \
        "common.user_dir=$(quote "$root/eat_plugin")" \
        "task.data=$(quote "$data")" \
        "hydra.run.dir=$(quote "$run")" \
        "checkpoint.save_dir=$(quote "$run/checkpoints")" \
        "common.tensorboard_logdir=$(quote "$run/tensorboard")" \
        common.log_format=json \
        "optimization.max_update=$updates" \
        "lr_scheduler.warmup_updates=$((updates / 10))" \
        "${precision[@]}" 2>&1 | tee "$console" | show_progress
}

say "Installation"
bash "$root/scripts/setup.sh"

say "Sounds"
if [ -n "${DATA:-}" ]; then
    printf '  %s\n' "$audio"
elif [ -f "$data/demo.json" ]; then
    printf '  the demo set is there: %s\n' "$audio"
else
    "$eat" demo --out "$data"
fi
# Listed anew only when a file or a folder has changed since.
if [ ! -f "$data/train.tsv" ] || [ -n "$(find -L "$audio" -newer "$data/train.tsv" -print | head -n 1)" ]; then
    "$eat" manifest "$audio" --out "$data"
fi

say "Pre-training, $updates updates"
mkdir -p "$run"
if [ "$(cat "$run/.trained" 2>/dev/null)" = "$updates" ]; then
    printf '  done before\n'
    if [ "$data/train.tsv" -nt "$run/.trained" ]; then
        printf '  (but the sounds have changed since: remove %s to train on them)\n' "$run"
    fi
else
    began=$SECONDS
    if ! train; then
        tail -n 20 "$console" | sed 's/^/    /' >&2
        fail "training failed; the whole log is in $console"
    fi
    printf '%s' "$updates" >"$run/.trained"
    rm -f "$picture"
    printf '  %d s\n' $((SECONDS - began))
fi
[ -f "$picture" ] || "$eat" plot --run "$run" --out "$picture" >/dev/null

cat <<END

Done in $SECONDS s.
  checkpoint  $run/checkpoints/checkpoint_last.pt
  picture     $picture  (each loss over updates; a clip beside its masks)
Next:
  DATA=/folder/of/your/audio bash scripts/quickstart.sh    the same on your own sounds
  .venv/bin/tensorboard --logdir "$run/tensorboard"        the curves, live
  README.md                                                larger models, GPUs, clusters
END
