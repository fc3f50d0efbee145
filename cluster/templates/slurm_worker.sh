# Worker: joins the head of job SWEEPS_HEAD_JOB, joins it again where it has moved, and ends with it. Checkpoints travel
# to the driver all the time, so a worker that goes loses a few seconds of work, which others take over.
address_file="head-${SWEEPS_HEAD_JOB:?is the number of the head job: sbatch --export=ALL,SWEEPS_HEAD_JOB=...}.address"
started="$(date +%s)"
trap stop_ray EXIT

# SIGTERM comes before this job's limit, and then the job is put into the queue again. It also comes when somebody
# cancels the job, and then it is not.
leave() {
  trap '' TERM
  stop_ray
  ends="${SLURM_JOB_END_TIME:-}"
  if [ -z "$ends" ] && [ "$limit_s" -gt 0 ]; then
    ends=$((started + limit_s))
  fi
  # Slurm may send the signal a minute early.
  if [ -n "$ends" ] && [ $((ends - $(date +%s))) -le $((grace_s + 90)) ]; then
    echo "this job's limit is near: it goes into the queue again"
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit 0
}
trap leave TERM

head_is_queued() {
  # Slurm's controller may be away for a while: only an answer without the job says that it is gone.
  ! queued="$(squeue --noheader --jobs="$SWEEPS_HEAD_JOB" --format=%T 2>/dev/null)" || [ -n "$queued" ]
}

nap() {
  sleep "$1" &
  wait "$!" || true # a trap runs at once while bash waits, not while it runs a command
}

while true; do
  while [ ! -s "$address_file" ]; do
    head_is_queued || exit 0
    nap 5
  done
  address="$(cat -- "$address_file")"
  echo "joining $address"
  memory=()
  if [ "$memory_bytes" -gt 0 ]; then
    memory=("--memory=$memory_bytes")
  fi
  ray start --block --address="$address" --node-ip-address="$ip" --num-cpus="$cpus" --num-gpus="$gpus" "${memory[@]}" \
    --dashboard-agent-listen-port="$((10000 + SLURM_JOB_ID % 9000))" --object-store-memory="$object_store_bytes" \
    --temp-dir="$ray_folder" >>"worker-$SLURM_JOB_ID.ray.log" 2>&1 &
  ray_pid=$!
  while kill -0 "$ray_pid" 2>/dev/null && [ "$(cat -- "$address_file" 2>/dev/null)" = "$address" ]; do
    nap 5
  done
  stop_ray
  nap 5
done
