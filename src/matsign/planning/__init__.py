"""What a function or an optimiser will cost on a mesh of devices, before it runs and without its memory.

>>> import matsign
>>> from matsign.planning import plan_function
>>> plan = plan_function(matsign.msign, (1000, 4096, 1024), mesh=8, steps=4)
>>> str(plan.way), plan.products, plan.bytes_moved
('local batch', (15, 15), 0)
"""

from matsign.planning.functions import plan_function
from matsign.planning.optimisers import plan_optimiser
from matsign.planning.plans import Collective, Plan, Way

__all__ = ["Collective", "Plan", "Way", "plan_function", "plan_optimiser"]
