export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
if [ -z "${RAY_AUTH_TOKEN:-}" ]; then
  RAY_AUTH_TOKEN="$(cat -- token)" # written by `sweeps submit`, with mode 600
  export RAY_AUTH_TOKEN
fi
ip="$(hostname --all-ip-addresses 2>/dev/null | awk '{print $1}')"
ip="${ip:-127.0.0.1}"

