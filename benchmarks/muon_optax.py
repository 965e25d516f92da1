"""Whether scale_by_msign follows the trajectory of optax.contrib.muon, on a small student of a random teacher.

    python benchmarks/muon_optax.py

For each way to call `scale_by_msign`: after 2, 10, 100 and 300 steps the distance of the parameters from those of
optax.contrib.muon, over the distance that these have moved (the largest of three seeds), and the loss at the end (the mean).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from arguments import parser

from matsign.optim import scale_by_msign

WIDTH, BATCH, STEPS, SEEDS = 32, 64, 300, 3
SEEN = (2, 10, 100, STEPS)
RATE = optax.schedules.linear_schedule(0.02, 0.0005, STEPS)
WAYS = {
    "ns_steps=5, bias_correction=True": {"ns_steps": 5, "bias_correction": True},
    "ns_steps=5": {"ns_steps": 5},
    "default": {},
}


def layers(key):
    one, two = jax.random.split(key)
    return {
        "up": jax.random.normal(one, (WIDTH, 2 * WIDTH)) / WIDTH**0.5,
        "down": jax.random.normal(two, (2 * WIDTH, WIDTH)) / (2 * WIDTH) ** 0.5,
    }


def apply(params, x):
    return jnp.tanh(x @ params["up"]) @ params["down"]


def train(transformation, seed):
    """The parameters before every step and at the end, and the loss at the end."""
    student, teacher, batches, kept = jax.random.split(jax.random.PRNGKey(seed), 4)
    target, start = layers(teacher), layers(student)

    def loss(params, key):
        x = jax.random.normal(key, (BATCH, WIDTH))
        return jnp.mean((apply(params, x) - apply(target, x)) ** 2)

    def step(carry, k):
        params, state = carry
        updates, state = transformation.update(jax.grad(loss)(params, jax.random.fold_in(batches, k)), state, params)
        return (optax.apply_updates(params, updates), state), params

    def run():
        (last, _), before = jax.lax.scan(step, (start, transformation.init(start)), jnp.arange(STEPS))
        return jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), before, last), loss(last, kept)

    return jax.jit(run)()


def distance(one, two, k, other_k):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return float(jnp.sqrt(sum(jnp.sum((x[k] - y[other_k]) ** 2) for x, y in leaves)))


def main():
    parser(__doc__).parse_args()
    theirs = [train(optax.contrib.muon(RATE), seed) for seed in range(SEEDS)]
    print(f"{'optax.contrib.muon':34}{'':40} loss {sum(float(loss) for _, loss in theirs) / SEEDS:.5f}")
    for name, options in WAYS.items():
        ours = [
            train(optax.chain(scale_by_msign(**options), optax.scale_by_learning_rate(RATE)), seed)
            for seed in range(SEEDS)
        ]
        apart = [
            max(distance(x, y, k, k) / distance(y, y, k, 0) for (x, _), (y, _) in zip(ours, theirs, strict=True))
            for k in SEEN
        ]
        figures = "".join(f"{value:10.1e}" for value in apart)
        print(f"{name:34}{figures} loss {sum(float(loss) for _, loss in ours) / SEEDS:.5f}")


if __name__ == "__main__":
    main()
