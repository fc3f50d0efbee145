# A job that runs the driver. Slurm sends SIGTERM before the job's limit and for `sweeps stop`; it is passed on to the driver,
# which ends in order, and what is done is kept. The end is written into a file, because Slurm forgets a job within minutes.
ended_file="ended-$SLURM_JOB_ID"
rm -f -- "$ended_file" # of an earlier run of this job, if it was requeued
stopped=no
child=

pass_on() {
  stopped=yes
  interrupted=yes
  local target="$child"
  if [ -s "${pid_file:-/dev/null}" ]; then
    target="$(cat -- "$pid_file")"
  fi
  if [ -n "$target" ]; then
    kill -TERM "$target" 2>/dev/null || true
  fi
}
trap pass_on TERM

# Run a command to its end, also after SIGTERM was passed on to it.
run_to_end() {
  local status
  [ "$stopped" = no ] || return 143
  "$@" &
  child=$!
  while true; do
    interrupted=no
    status=0
    wait "$child" || status=$?
    [ "$interrupted" = yes ] || break
  done
  child=
  return "$status"
}

record_end() {
  local state=failed
  if [ "$1" -eq 0 ]; then
    state="done"
  elif [ "$stopped" = yes ]; then
    state=stopped
  fi
  printf '%s\n' "$state" >"$ended_file.new"
  mv -- "$ended_file.new" "$ended_file"
}

