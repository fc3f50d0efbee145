exec python3 -m cluster.sending "$sweep_name"
