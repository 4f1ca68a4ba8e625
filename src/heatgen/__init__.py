"""heatgen: heat-equation and other linear-degradation generative models, under one law u_t = A(t) u_0 + b(t) + L(t) eps."""

__version__ = "0.1.0"
