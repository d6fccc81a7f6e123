#!/usr/bin/env bash
# Runs a built image without a Docker engine, as compose.yaml would: its own command and user, a real Redis with
# compose's flags, no capabilities. Then README's curl, the image's health check, and a SIGTERM that must end it well.
#
#   buildah bud --format docker --isolation chroot --network host --pull-never -t kshot .
#   deploy/check_image.sh [IMAGE]
#
# Needs root, buildah, redis-server, curl, an installed .venv, and the ports 6379 and 8000.
set -euo pipefail
image=${1:-localhost/kshot}
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python
folder=$(mktemp -d)
container=$(buildah from --pull-never --add-host redis:127.0.0.1 "$image")
finish() {
  kill "${redis:-}" 2>/dev/null || true
  buildah rm "$container" >/dev/null
  rm -rf "$folder"
}
trap finish EXIT
config() { buildah inspect --type image "$image" | "$python" -c "import json, sys; c = json.load(sys.stdin)['Docker']['config']; print($1)"; }

mapfile -t flags < <("$python" -c 'import yaml; print(*yaml.safe_load(open("compose.yaml"))["services"]["redis"]["command"][1:], sep="\n")')
redis-server --bind 127.0.0.1 --port 6379 --dir "$folder" "${flags[@]}" >"$folder/redis.log" &
redis=$!

started=$(date +%s%N)
# shellcheck disable=SC2046  # the command is a list of words
buildah run --isolation chroot --network host --user "$(config "c['User']")" --cap-drop ALL \
  --env KSHOT_STORE=redis://redis:6379/0 --env KSHOT_OPEN=1 "$container" -- $(config "*c['Cmd']") >"$folder/service.log" 2>&1 &
run=$!
until curl -sf http://127.0.0.1:8000/readyz >"$folder/ready"; do
  kill -0 "$run" 2>/dev/null || { cat "$folder/service.log"; exit 1; }
  sleep 0.1
done
echo "ready after $((($(date +%s%N) - started) / 1000000)) ms: $(cat "$folder/ready")"

"$python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

from deploy.readme_answer import COMMANDS, make_clips

make_clips(Path(sys.argv[1]))
Path(sys.argv[1], "curl.sh").write_text(COMMANDS)
PYTHON
(cd "$folder" && bash -euo pipefail curl.sh | "$python" -m json.tool --compact)

buildah run --isolation chroot --network host "$container" -- python -c "$(config "c['Healthcheck']['Test'][3]")"
echo "the health check says yes"

stopped=$(date +%s%N)
kill -TERM "$(pgrep -u 10001 -f '^/opt/kshot/bin/python -m service$')"
wait "$run" && status=0 || status=$?
echo "SIGTERM: exit $status after $((($(date +%s%N) - stopped) / 1000000)) ms"
exit "$status"
