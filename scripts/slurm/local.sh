#!/usr/bin/env bash
# Installs Slurm on this machine (Debian or Ubuntu, as root) and starts it as a cluster of one node,
# to try jobs and for the tests:
#
#   . scripts/slurm/local.sh FOLDER       sets SLURM_CONF for this shell
#   python -m pytest -m slow tests/training/test_slurm.py
#   scontrol shutdown
folder=${1:?give a folder for the state of Slurm}
mkdir -p "$folder/state" "$folder/spool" /run/munge
command -v slurmctld > /dev/null || apt-get install --yes slurm-wlm munge
chown munge /run/munge /var/log/munge /var/lib/munge
export SLURM_CONF=$folder/slurm.conf
host=$(hostname -s)
cat > "$SLURM_CONF" << END
ClusterName=local
SlurmctldHost=$host
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
ReturnToService=2
NodeName=$host CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP OverSubscribe=FORCE:8
END
pgrep -x munged > /dev/null || su munge -s /bin/sh -c munged
pgrep -x slurmctld > /dev/null || slurmctld
pgrep -x slurmd > /dev/null || slurmd
for _ in $(seq 30); do
    [ "$(sinfo --noheader --format=%T 2> /dev/null)" = idle ] && break
    sleep 1
done
sinfo
