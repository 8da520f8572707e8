#!/bin/bash
# Training on the GPUs of several nodes by SLURM, one job after the other until it is complete:
#
#   sbatch configs/slurm.sh NAME --data.train SET.h5 --config configs/gpu.yaml --trainer.max_time 20h
#
# writes NAME.safetensors. Five minutes before the time of the job is over the training stops after a
# step, saves, and the job is queued again and goes on from there; max_time is that of all jobs
# together. See docs/howto/clusters.md. On one node: --nodes=1. On CPUs: --ntasks-per-node=NUMBER without
# --gpus-per-node, and --trainer.accelerator cpu.
#SBATCH --job-name=train-potential
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

name=${1:?give the name of the model to write}
shift

resume=()
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && [ -e "runs/$name/last.ckpt" ]; then
    resume=(--ckpt_path last)
fi
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
srun --kill-on-bad-exit=1 --cpus-per-task="$OMP_NUM_THREADS" \
    train-potential fit --output "$name.safetensors" \
    --trainer.devices "$SLURM_NTASKS_PER_NODE" --trainer.num_nodes "$SLURM_NNODES" \
    "$@" "${resume[@]}"
status=$?
if [ $status -eq 138 ]; then # stopped by USR1 before it was complete
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
