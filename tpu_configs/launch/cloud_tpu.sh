#!/usr/bin/env bash
# Trains on a slice of Cloud TPU by a queued resource, of spot capacity here; v5e-16 and so on:
#
#     tpu_configs/launch/cloud_tpu.sh RUN_NAME us-west4-a v5litepod-16 v2-alpha-tpuv5-lite \
#         --config=tpu_configs/degla_vit_b32.py --config.data.root=gs://BUCKET/coco \
#         --workdir=gs://BUCKET/runs/RUN_NAME
#
# Needs: gcloud with a project that has the quota; a bucket in the slice's region that the project's
# service account can write; REPOSITORY, a git address that the hosts can clone (default: origin).
# Each host runs the same command when it starts. A slice that is taken away gets SIGTERM: the run
# saves and leaves; delete the queued resource and call this again, and it goes on from there.
set -euo pipefail

name="${1:?name, zone, accelerator type, runtime version, then arguments of train.py}"
zone="$2" accelerator="$3" runtime="$4"
shift 4
repository="${REPOSITORY:-$(git remote get-url origin)}"

startup="$(mktemp)"
trap 'rm -f "$startup"' EXIT
cat > "$startup" <<END
#!/usr/bin/env bash
set -euo pipefail
cd /opt
[ -d tutelage ] || git clone $(printf %q "$repository") tutelage
cd tutelage
python3 -m venv .venv
.venv/bin/pip install --quiet -e ".[tpu,gcs]"
exec .venv/bin/python train.py --coordinator=auto$(printf ' %q' "$@")
END

gcloud compute tpus queued-resources create "$name" --node-id="$name" --zone="$zone" \
  --accelerator-type="$accelerator" --runtime-version="$runtime" --spot \
  --metadata-from-file=startup-script="$startup"
