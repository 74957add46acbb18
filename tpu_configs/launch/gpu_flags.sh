# What XLA and JAX are told on NVIDIA GPUs, each with its reason; to be sourced before train.py:
#
#     . tpu_configs/launch/gpu_flags.sh
#     python train.py --config=tpu_configs/degla_vit_b32.py ...
#
# slurm.sh, and local.sh where it is given GPUs, do so. Flags that are set already come last, and count.
# None of them changes a result beyond rounding; none was timed here, where there is no GPU.

flags=(
  # Collectives are started early and waited for late, with computation between.
  --xla_gpu_enable_latency_hiding_scheduler=true
  # Layers run in a loop: the next one's parameters are gathered while this one computes (fsdp), and
  # the last one's gradients are still on their way.
  --xla_gpu_enable_pipelined_all_gather=true
  --xla_gpu_enable_pipelined_reduce_scatter=true
  --xla_gpu_enable_pipelined_all_reduce=true
  # Two bodies of that loop stand one behind the other, so that no buffer is copied between them.
  --xla_gpu_enable_while_loop_double_buffering=true
  # A model has some hundred small gradients: fewer collectives of up to 128 MB each.
  --xla_gpu_all_reduce_combine_threshold_bytes=134217728
  --xla_gpu_all_gather_combine_threshold_bytes=134217728
  --xla_gpu_reduce_scatter_combine_threshold_bytes=134217728
)
export XLA_FLAGS="${flags[*]} ${XLA_FLAGS:-}"
# Nothing else is on these GPUs; NCCL needs what is left.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"
# Every process compiles the same programs: once, where all can read them, and once for all restarts.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$PWD/.jax_cache}"
unset flags
