#!/bin/bash
#SBATCH --job-name=opssat-anomalies
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=1024M
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@30
set -euo pipefail
# opssat-anomalies, version 1, on 127.0.0.1:8080 of the node until the time is up.
# `exec` hands Slurm's TERM to the server, which finishes the requests it has.
exec apptainer run --containall "${SLURM_SUBMIT_DIR:-.}/opssat-anomalies-1.sif"
