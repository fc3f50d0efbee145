ray_folder="/tmp/ray-$UID-$SLURM_JOB_ID" # Ray's default, /tmp/ray, belongs to the first user of the node
ray_pid=
# Ray's folders are open to everybody: the one around them must be our own, and closed.
make_ray_folder() {
  rm -rf -- "$ray_folder" && mkdir -m 700 -- "$ray_folder" && return
  echo "$ray_folder belongs to another user" >&2
  exit 1
}

stop_ray() {
  # Not `ray stop`, which ends every Ray of this user on the node, other jobs' too.
  if [ -n "${ray_pid:-}" ]; then
    kill -TERM "$ray_pid" 2>/dev/null || true
    wait "$ray_pid" 2>/dev/null || true
    ray_pid=
  fi
  rm -rf -- "$ray_folder"
}

