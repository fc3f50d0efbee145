# A worker job: joins the head of job SWEEPS_HEAD_JOB, joins again where it has moved, and ends with it. Checkpoints are sent
# to the driver all the time, so a worker that leaves loses a few seconds of work, which others repeat.
address_file="head-${SWEEPS_HEAD_JOB:?is the number of the head job: sbatch --export=ALL,SWEEPS_HEAD_JOB=...}.address"
started="$(date +%s)"
ray_log="worker-$SLURM_JOB_ID.ray.log"
failures=0
trap stop_ray EXIT

# Print the state of the head's job (RUNNING or another), `gone`, or nothing while Slurm's controller does not answer.
# Two jobs are given, because for a single one that Slurm has forgotten squeue fails as well.
head_state() {
  local queued
  queued="$(squeue --noheader --jobs="$SWEEPS_HEAD_JOB,$SLURM_JOB_ID" --format='%A %T' 2>/dev/null)" || return 0
  awk -v job="$SWEEPS_HEAD_JOB" '$1 == job { state = $2 } END { print state ? state : "gone" }' <<<"$queued"
}

# Slurm sends SIGTERM before this job's limit: then the job is requeued. It also sends it when the job is cancelled: then it
# is not.
leave() {
  trap '' TERM
  stop_ray
  ends="${SLURM_JOB_END_TIME:-}"
  if [ -z "$ends" ] && [ "$limit_s" -gt 0 ]; then
    ends=$((started + limit_s))
  fi
  # Slurm may send the signal a minute early. Workers are cancelled when their head has ended: no requeue.
  if [ -n "$ends" ] && [ $((ends - $(date +%s))) -le $((grace_s + 90)) ] && [ "$(head_state)" != gone ]; then
    echo "this job's limit is near: it is requeued"
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit 0
}
trap leave TERM

pause() {
  sleep "${SWEEPS_POLL_S:-5}" &
  wait "$!" || true # a trap runs at once while bash waits, not while it runs a command
}

while true; do
  case "$(head_state)" in
    gone) exit 0 ;;
    RUNNING | "") ;;
    *) pause && continue ;; # the old address of a head that lost its node and is in the queue again
  esac
  if [ ! -s "$address_file" ]; then
    pause
    continue
  fi
  address="$(cat -- "$address_file")"
  echo "joining $address"
  memory=()
  if [ "$memory_bytes" -gt 0 ]; then
    memory=("--memory=$memory_bytes")
  fi
  make_ray_folder
  ray start --block --address="$address" --node-ip-address="$ip" --num-cpus="$cpus" --num-gpus="$gpus" "${memory[@]}" \
    --dashboard-agent-listen-port="$((30000 + SLURM_JOB_ID % 2700))" --object-store-memory="$object_store_bytes" \
    --temp-dir="$ray_folder/r" >>"$ray_log" 2>&1 &
  ray_pid=$!
  joined="$(date +%s)"
  while kill -0 "$ray_pid" 2>/dev/null && [ "$(cat -- "$address_file" 2>/dev/null)" = "$address" ]; do
    pause
  done
  stop_ray
  # Ray ends when the head moves, which is no failure. Ending at once, several times in a row, is one.
  failures=$(($(date +%s) - joined < 60 ? failures + 1 : 0))
  if [ "$failures" -ge 5 ]; then
    echo "Ray ended $failures times within a minute of its start; the end of $ray_log" >&2
    tail -n 20 -- "$ray_log" >&2
    exit 1
  fi
  pause
done
