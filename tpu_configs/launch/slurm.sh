#!/usr/bin/env bash
# Trains on GPU nodes of a SLURM cluster, one process a GPU; four nodes of eight here:
#
#     sbatch --nodes=4 tpu_configs/launch/slurm.sh --config=tpu_configs/degla_vit_b32.py \
#         --config.data.root=COCO --workdir=RUN
#
# Needs: the repository, its environment (active where sbatch is called), COCO and RUN on storage
# that all nodes see. Goes on by itself: each task of the array is the same command, which starts
# from the last checkpoint, and once the run is done it leaves at once.
#SBATCH --array=1-10%1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

. tpu_configs/launch/gpu_flags.sh  # SLURM runs a copy of this file, in the folder of sbatch

# SIGTERM, 300 s before the time is up, goes to the processes: they save and leave.
exec srun --kill-on-bad-exit=1 python train.py --coordinator=auto "$@"
