#!/usr/bin/env bash
# Starts a command as several processes of one run on this machine:
#
#     tpu_configs/launch/local.sh 2 train.py --config=tpu_configs/quickstart.py --workdir=RUN
#
# SIGTERM and Ctrl-C go to all of them, which save and leave; the same command goes on from there.
# Ends with the first status that is not 0. CUDA_VISIBLE_DEVICES of each is GPUS_PER_PROCESS (0:
# untouched, all of them see all) of the machine's.
set -uo pipefail

count="${1:?how many processes, then the command}"
shift
python="${PYTHON:-python}"
gpus="${GPUS_PER_PROCESS:-0}"
if ((gpus)); then . "$(dirname "$0")/gpu_flags.sh"; fi
port="$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')"

processes=()
trap 'kill -TERM "${processes[@]}" 2>/dev/null' TERM INT
for ((i = 0; i < count; i++)); do
  if ((gpus)); then
    CUDA_VISIBLE_DEVICES="$(seq -s, $((i * gpus)) $((i * gpus + gpus - 1)))"
    export CUDA_VISIBLE_DEVICES
  fi
  "$python" "$@" --coordinator="localhost:$port" --num_processes="$count" --process_id="$i" &
  processes+=($!)
done

status=0
for process in "${processes[@]}"; do
  # A signal ends `wait` before the process has.
  while kill -0 "$process" 2>/dev/null; do wait "$process" 2>/dev/null; done
  wait "$process"
  ended=$?
  ((status)) || status=$ended
done
exit "$status"
