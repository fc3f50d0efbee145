# The head job: Ray's head, which trains nothing, and the driver. Workers find it by the file head-JOB.address, and end when
# that file is removed.
address_file="head-$SLURM_JOB_ID.address"
ray_log="head-$SLURM_JOB_ID.ray.log"
rm -f -- "$address_file" "$ray_log" # of an earlier run of this job, if it was requeued

# Two sweeps on one node need different ports: two for each job, between those of Ray's workers (10002 to 19999) and those
# that the system gives out (from 32768).
port="${fixed_port:-$((20000 + SLURM_JOB_ID % 5000 * 2))}"
address="$ip:$port"

start_head() {
  make_ray_folder
  ray start --head --block --node-ip-address="$ip" --port="$port" --num-cpus=0 --num-gpus=0 \
    --dashboard-agent-listen-port="$((port + 1))" \
    --include-dashboard=false --object-store-memory="$object_store_bytes" --temp-dir="$ray_folder/r" \
    >>"$ray_log" 2>&1 &
  ray_pid=$!
  while [ "$stopped" = no ] && kill -0 "$ray_pid" 2>/dev/null; do
    if timeout 15 ray health-check --address "$address" >/dev/null 2>&1 && grep -q 'Ray runtime started' "$ray_log"; then
      return 0
    fi
    sleep 1
  done
  return 1
}

# The workers of a head that is requeued are kept: they wait for it.
is_requeued() {
  scontrol show job --oneliner "$SLURM_JOB_ID" 2>/dev/null |
    grep --quiet " Restarts=$((${SLURM_RESTART_COUNT:-0} + 1)) "
}

end_job() {
  rm -f -- "$address_file"
  if [ -s worker-jobs ] && ! is_requeued; then
    xargs scancel --quiet <worker-jobs || true
  fi
  stop_ray
  record_end "$1"
}
trap 'end_job "$?"' EXIT

# Ray gives itself 30 s, which is too short where Python is read from a slow disk for the first time.
attempt=1
until start_head; do
  [ "$stopped" = no ] || exit 1
  if [ "$attempt" -eq 3 ]; then
    echo "Ray's head did not start on $ip; the end of $ray_log" >&2
    tail -n 20 -- "$ray_log" >&2
    exit 1
  fi
  attempt=$((attempt + 1))
  stop_ray
  rm -f -- "$ray_log"
done
export RAY_ADDRESS="$address"
printf '%s\n' "$RAY_ADDRESS" >"$address_file.new"
mv -- "$address_file.new" "$address_file" # in one step: no worker reads half an address
echo "Ray's head is up at $RAY_ADDRESS"

run_to_end python3 -m cluster.slurm.wait_for_workers --timeout-s "$wait_s"
export SWEEPS_WAIT_S="$wait_s" # the first worker may leave before the driver needs one
run_to_end sweeps run "$sweep_file" "$mlflow"
