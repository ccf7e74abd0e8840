#!/bin/bash
# Workers of one search as a SLURM array. Before the first submission make the study, from anywhere:
#   archtuna search search.yaml --data photos --out /shared/runs/photos --study photos --storage "$ARCHTUNA_STORAGE" --workers 0
# then:  sbatch --export=ALL,STUDY=photos,DATA=/shared/photos examples/cluster/slurm.sh
#SBATCH --job-name=archtuna
#SBATCH --array=0-7
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@60
set -uo pipefail

: "${STUDY:?the name of the study}"
: "${DATA:?where the pictures are on this machine}"
: "${ARCHTUNA_STORAGE:?the URL of the database; its password may stand in ~/.pgpass}"

# The signal a minute before the end comes to this shell. The worker hands its trial back, and another goes on at its epoch.
archtuna worker --study "$STUDY" --data "$DATA" --quiet &
worker=$!
trap 'kill -TERM "$worker"' TERM
wait "$worker"
code=$?
if [ "$code" -gt 128 ]; then # A trapped signal ends `wait` before the worker has ended.
    wait "$worker"
    code=$?
fi
exit "$code"
