"""Fuzz for a while: ``python -m fuzz --seconds 3600`` (``make fuzz``), with tests/ and src/ on the path.

Every case follows from its seed. The log is a line of JSON: the next seed and what was counted; a run that finds it goes on
from there. What is broken is printed, as a call to paste, and kept in the file beside the log.
"""

import argparse
import faulthandler
import json
import sys
import time
from pathlib import Path

from fuzz import cases, promises


def arguments():
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600, help="how long (default an hour)")
    parser.add_argument("--cases", type=int, help="how many cases at most")
    parser.add_argument("--seed", type=int, default=0, help="the first seed of a new log")
    parser.add_argument("--stride", type=int, default=1, help="from one seed to the next, for several runs at once")
    parser.add_argument("--log", type=Path, default=Path(".fuzz.json"), help="the log, resumed if it exists")
    parser.add_argument("--functions", nargs="*", choices=sorted(cases.BY_NAME), help="these alone")
    parser.add_argument("--libraries", nargs="*", default=["torch"], choices=["torch", "jax"], help="beside NumPy")
    parser.add_argument(
        "--device",
        default="cpu",
        choices=["cpu", "cuda", "emulated"],
        help="where PyTorch's tensors are; emulated is computed by the CPU",
    )
    parser.add_argument(
        "--jax-every", type=int, default=20, help="one case in so many on JAX too (it compiles by shape)"
    )
    parser.add_argument("--show", type=int, default=3, help="so many cases of a function and promise are printed")
    parser.add_argument("--soft", action="store_true", help="show missing answers and lost digits as well")
    return parser.parse_args()


def main():
    asked = arguments()
    if "jax" in asked.libraries or asked.jax_every:
        _prepare_jax()
    _prepare_torch(asked.device)
    log = _resume(asked)
    found = asked.log.with_suffix(".found")
    start = time.monotonic()
    while time.monotonic() - start < asked.seconds and (asked.cases is None or log["cases"] < asked.cases):
        seed = log["next"]
        subject = _subject(asked, seed)
        faulthandler.dump_traceback_later(4 * promises.SECONDS_ON_JAX, exit=True)
        broken, checker = run(seed, subject, _libraries(asked, seed))
        faulthandler.cancel_dump_traceback_later()
        log["next"] = seed + asked.stride
        log["cases"] += 1
        log["calls"] += checker.calls
        log["answered"] += checker.answered
        _count(log["functions"], checker.case.subject.name)
        for promise in broken:
            _count(log["broken"], f"{checker.case.subject.name}: {promise.promise}")
            text = f"{seed} {checker.case.subject.name}: {promise.promise}: {promise.seen}\n    {checker.case}\n"
            with found.open("a") as file:
                file.write(text)
            few = log["broken"][f"{checker.case.subject.name}: {promise.promise}"] <= asked.show
            if few and (asked.soft or promise.promise not in promises.SOFT):
                print(text, end="", flush=True)
        if log["cases"] % 20 == 0:
            asked.log.write_text(json.dumps(log, indent=1) + "\n")
    asked.log.write_text(json.dumps(log, indent=1) + "\n")
    print(json.dumps({k: log[k] for k in ("cases", "calls", "answered", "broken")}, indent=1))
    sys.exit(any(name.split(": ")[1] not in promises.SOFT for name in log["broken"]))


def run(seed, subject=None, libraries=("torch",)):
    """What the case of a seed breaks, and its checker. JAX compiles for every shape and dtype: there it is one shape and two."""
    few = {"sizes": (2,), "dtype": ("float64", "complex64")[seed % 2]} if "jax" in libraries else {}
    case, rng = cases.draw(seed, subject, **few)
    checker = promises.check(case, rng, libraries)
    return checker.broken, checker


def _subject(asked, seed):
    return cases.BY_NAME[asked.functions[seed % len(asked.functions)]] if asked.functions else None


def _libraries(asked, seed):
    return [x for x in asked.libraries if x != "jax"] + ["jax"] * (
        "jax" in asked.libraries or (asked.jax_every and seed % asked.jax_every == 0)
    )


def _resume(asked):
    if asked.log.exists():
        return json.loads(asked.log.read_text())
    return {
        "first": asked.seed,
        "next": asked.seed,
        "cases": 0,
        "calls": 0,
        "answered": 0,
        "functions": {},
        "broken": {},
    }


def _count(counts, name):
    counts[name] = counts.get(name, 0) + 1


def _prepare_jax():
    if promises.HAVE["jax"]:
        import jax

        jax.config.update("jax_enable_x64", True)


def _prepare_torch(device):
    if device == "cuda":
        promises.put_on_device = lambda x: x.cuda()
    elif device == "emulated":
        import emulated_device

        emulated_device.emulated().__enter__()
        promises.put_on_device = emulated_device.put


if __name__ == "__main__":
    main()
