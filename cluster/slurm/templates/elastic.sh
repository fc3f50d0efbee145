ray_folder="/tmp/ray-$UID-$SLURM_JOB_ID" # Ray's default, /tmp/ray, belongs to whoever came first
ray_pid=
# Ray lets everybody into its folders: the one around them nobody else may enter, nor have made before.
make_ray_folder() {
  rm -rf -- "$ray_folder" && mkdir -m 700 -- "$ray_folder" && return
  echo "$ray_folder belongs to somebody else" >&2
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

