"""The learning rate of every step, by transformers' schedules."""

from __future__ import annotations

from typing import Any

from moe_training.settings import Settings

_EXTRA: dict[str, dict[str, float]] = {
    'cosine_with_min_lr': {'min_lr_rate': 0.1}, 'cosine_warmup_with_min_lr': {'min_lr_rate': 0.1}}
_DECAY_SHARE = 0.2  # of the steps, at the end of warmup_stable_decay


class Schedule:
    """Sets the rate of an optimiser; moved by one step against transformers, so no step is made with a rate of 0.

    Only "reduce_lr_on_plateau" has a state; it looks at the validation loss.
    """

    def __init__(self, optimiser: Any, settings: Settings, total: int) -> None:
        from transformers import get_scheduler

        extra: dict[str, Any] = dict(_EXTRA.get(settings.scheduler, {}))
        if settings.scheduler == 'warmup_stable_decay':
            extra['num_decay_steps'] = max(1, round(_DECAY_SHARE * total))
        self._optimiser, self._peak = optimiser, settings.learning_rate
        self.scale = 1.0
        scheduler: Any = get_scheduler(
            settings.scheduler, optimiser, num_warmup_steps=max(1, round(settings.warmup_ratio * total)),
            num_training_steps=total + 1, scheduler_specific_kwargs=extra or None)
        lambdas = getattr(scheduler, 'lr_lambdas', None)
        self._share = lambdas[0] if lambdas else None
        self._plateau = None if lambdas else scheduler
        self._reduced = 1.0

    def set(self, step: int) -> float:
        """Set the rate of a 0-based step and return it."""
        share = self._share(step + 1) if self._share else self._reduced
        rate = self._peak * float(share) * self.scale
        for group in self._optimiser.param_groups:
            group['lr'] = rate
        return rate

    def evaluated(self, loss: float) -> None:
        """Hear of a validation loss."""
        if self._plateau is not None:
            group = self._optimiser.param_groups[0]
            group['lr'] = self._peak * self._reduced
            self._plateau.step(loss)
            self._reduced = group['lr'] / self._peak

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        names = ('best', 'num_bad_epochs', 'cooldown_counter', 'last_epoch')
        plateau = {name: getattr(self._plateau, name) for name in names} if self._plateau is not None else {}
        return {'scale': self.scale, 'reduced': self._reduced, 'plateau': plateau}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped."""
        self.scale, self._reduced = state['scale'], state['reduced']
        for name, value in state['plateau'].items():
            setattr(self._plateau, name, value)
