#!/bin/sh
# What the tests need from the system: a redis-server beside the embedded one, Chromium, a Docker Engine with Compose and
# a registry of images, an ssh server, systemd, a Slurm, podman and luacheck. Installs what is missing where it may;
# says what to install where it may not.
set -eu
missing=""
has() { command -v "$1" >/dev/null 2>&1; }
has redis-server || missing="$missing redis-server"
has chromium || missing="$missing chromium"
{ python3 -c 'import ensurepip' && /usr/bin/python3 -c 'import ensurepip'; } >/dev/null 2>&1 || missing="$missing python3-venv"
PATH="$PATH:/usr/sbin:/sbin"
has dockerd && has docker || missing="$missing docker.io"
has docker-registry || missing="$missing docker-registry"
has iptables || missing="$missing iptables"
has ip || missing="$missing iproute2"
has systemd-analyze && [ -x /usr/lib/systemd/systemd ] || missing="$missing systemd"
has debootstrap || missing="$missing debootstrap"
has sshd && has ssh || missing="$missing openssh-server openssh-client"
has slurmctld && has slurmd && has sbatch || missing="$missing slurm-wlm"
has munged || missing="$missing munge"
has podman || missing="$missing podman"
has catatonit || missing="$missing catatonit"
has luacheck || missing="$missing lua-check"
compose=""
{ has docker && docker compose version >/dev/null 2>&1; } || compose="docker-compose"
[ -z "$missing$compose" ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! has apt-get; then
  [ -z "$missing" ] || echo "the tests also need:$missing (apt-get install$missing)" >&2
  [ -z "$compose" ] || echo "the tests also need: Docker Compose v2, as a plugin of the docker command" >&2
  [ "${CI:-}" = true ] && exit 1
  exit 0
fi
# RUNLEVEL=1 keeps the packages from starting their servers.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1

# Compose v2 is no package of Debian 12: one file of the next release's works as a plugin of its engine.
install_compose() {
  work=$(mktemp -d)
  mkdir -p "$work/sources" "$work/lists/partial" "$work/x"
  suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    if [ -f "$list" ] && grep -q "[ /]$suite" "$list"; then
      sed "s/\b$suite\b/$1/g" "$list" >"$work/sources/$(basename "$list")"
    fi
  done
  next="-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$work/sources -o Dir::State::Lists=$work/lists"
  next="$next -o APT::Sandbox::User=root"
  # shellcheck disable=SC2086  # a list of options
  (cd "$work" && apt-get $next update -qq && apt-get $next download -qq docker-compose)
  dpkg-deb -x "$work"/docker-compose_*.deb "$work/x"
  plugins="${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins"
  mkdir -p "$plugins"
  install -m 755 "$work/x/usr/libexec/docker/cli-plugins/docker-compose" "$plugins/docker-compose"
  rm -rf "$work"
}

if [ -n "$missing" ]; then
  echo "installing for the tests:$missing"
  apt-get update -qq
  # shellcheck disable=SC2086  # a list of package names
  apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
if ! docker compose version >/dev/null 2>&1; then
  echo "installing for the tests: Docker Compose v2"
  case "$(apt-cache policy docker-compose | sed -n 's/^ *Candidate: *//p')" in
    [2-9].*) apt-get install -y -qq --no-install-recommends docker-compose >/dev/null ;;
    *) install_compose trixie ;;
  esac
fi
