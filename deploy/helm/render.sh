#!/usr/bin/env bash
# Writes rendered/: the chart with each of cases/. Debian's golang-go, golang-github-masterminds-sprig-dev
# and golang-gopkg-yaml.v3-dev are needed; `helm template demo kshot -f FILE` says the same.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS='' GOCACHE="$work" go build -o "$work/render" render.go
to=${1:-rendered}
"$work/render" kshot >"$to/default.yaml"
for file in cases/*.yaml; do
  "$work/render" kshot "$file" >"$to/$(basename "$file")"
done
