# All nodes at once: `ray symmetric-run` starts Ray on every node, runs the driver on the first, and stops Ray.
# Its properties (Ray 2.60) that are handled here:
# - it waits 30 s for the nodes by default, and for exactly as many as --min-nodes, so both are set;
# - it takes the node that owns the address for the head: a real address of this node, the first of the job;
# - it passes no token on: the variables reach every node by srun;
# - it ends with `ray stop`, which ends every Ray of this user on the node: the nodes are this job's own (--exclusive);
# - it exits with 0 where Ray did not start: the driver leaves a file when it begins;
# - SIGTERM would end it and not the driver: the signal is sent to the driver itself.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT="$wait_s"
export pid_file="driver-$SLURM_JOB_ID.pid" sweep_file mlflow
rm -f -- "$pid_file"

port="${fixed_port:-$((20000 + SLURM_JOB_ID % 5000 * 2))}"
memory=()
if [ "$memory_bytes" -gt 0 ]; then
  memory=("--memory=$memory_bytes")
fi
trap 'record_end "$?"' EXIT
status=0
# shellcheck disable=SC2016  # the inner shell expands them, on the first node
run_to_end srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=0 --export=ALL \
  ray symmetric-run --address "$ip:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus="$cpus" --num-gpus="$gpus" "${memory[@]}" --object-store-memory="$object_store_bytes" \
  -- bash -c 'printf "%s\n" "$$" >"$pid_file"; export RAY_ADDRESS="$0"; exec sweeps run "$sweep_file" "$mlflow"' "$ip:$port" ||
  status=$?
if [ ! -s "$pid_file" ]; then
  echo "the driver never began: Ray ran on a node already, or did not start on all $SLURM_JOB_NUM_NODES within $wait_s s" >&2
  exit 1
fi
exit "$status"
