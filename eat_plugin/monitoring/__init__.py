"""What a running pre-training is judged by: spread of its vectors, alarms, a probe."""
