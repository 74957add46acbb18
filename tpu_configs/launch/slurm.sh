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

# Collectives run beside the computation that does not wait for them.
export XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true ${XLA_FLAGS:-}"
# Nothing else is on these GPUs; NCCL needs what is left.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"
# Every process compiles the same programs: once, where all can read them.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$PWD/.jax_cache}"

# SIGTERM, 300 s before the time is up, goes to the processes: they save and leave.
exec srun --kill-on-bad-exit=1 python train.py --coordinator=auto "$@"
