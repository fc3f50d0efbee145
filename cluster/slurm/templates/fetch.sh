exec python3 -m cluster.records "$sweep_name"
