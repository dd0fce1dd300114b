#!/bin/sh
# What the tests need from the system: a redis-server beside the embedded one, and Chromium. Installs what is
# missing where it may; says what to install where it may not.
set -eu
missing=""
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
python3 -c 'import ensurepip' >/dev/null 2>&1 || missing="$missing python3-venv"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "the tests also need:$missing (apt-get install$missing)" >&2
  [ "${CI:-}" = true ] && exit 1
  exit 0
fi
echo "installing for the tests:$missing"
# RUNLEVEL=1 keeps the package from starting its server.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update -qq
# shellcheck disable=SC2086  # a list of package names
apt-get install -y -qq --no-install-recommends $missing >/dev/null
