# The workflow with the tested pins; docs/how-to/install.md says how to run it.
FROM python:3.11-slim-bookworm
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends g++ git && rm -rf /var/lib/apt/lists/*
WORKDIR /dollmaker
COPY . .
RUN pip install --no-cache-dir -c envs/constraints.txt -e '.[workflow,dicom,slurm]'
ENV OMP_NUM_THREADS=2
CMD ["dollmaker", "--help"]
