"""The verdict of an A/B test: a sequential test that may be looked at after every outcome, with its safeguards.

The test is a mixture likelihood ratio with the null hypothesis at its maximum: the Beta(1/2, 1/2)-mixture likelihood of
two success rates over the largest likelihood of one common rate. By universal inference (Wasserman, Ramdas,
Balakrishnan, "Universal inference", PNAS 2020) it is at most a non-negative martingale with mean 1 whatever the common
rate is, so by Ville's inequality 1 / (its running maximum) is an always-valid p-value in the sense of Johari, Koomen,
Pekelis, Walsh, "Always Valid Inference", Operations Research 2022. It holds at any sample size, without a variance to
estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ALPHA = 0.05
RATIO_ALPHA = 0.001
MINIMUM = 50  # units with an outcome in each arm, before anything is decided
SLOWER = 1.25  # guardrail: the treatment's geometric mean latency over the control's
MORE_ERRORS = 0.02  # guardrail: the treatment's share of failures minus the control's


@dataclass(frozen=True)
class Arm:
    """What one side of a test has seen. A unit is a session, or a request without a session.

    Args:
        assigned: units.
        outcomes: units with an outcome; one that stayed out counts as a failure.
        successes: of the outcomes.
        rated: units with feedback.
        liked: of the rated ones, those with a positive score.
        log_latency: mean of the logarithm of the latency [s]; None = no latency yet.
    """

    assigned: int = 0
    outcomes: int = 0
    successes: int = 0
    rated: int = 0
    liked: int = 0
    log_latency: float | None = None

    @property
    def success_rate(self) -> float:
        """Share of the outcomes that succeeded."""
        return self.successes / self.outcomes if self.outcomes else 0.0

    @property
    def liked_rate(self) -> float:
        """Share of the ratings that are positive."""
        return self.liked / self.rated if self.rated else 0.0


@dataclass(frozen=True)
class Verdict:
    """What is known now.

    Args:
        decision: 'promote', 'roll back' or '' (go on).
        sentence: for people.
        evidence: logarithm of the running maximum of the likelihood ratio.
        p_value: always-valid; None before there are enough outcomes.
    """

    decision: str
    sentence: str
    evidence: float
    p_value: float | None


def log_ratio(control_good: int, control_all: int, treatment_good: int, treatment_all: int) -> float:
    """Logarithm of the mixture likelihood ratio of two success rates against one."""
    good, every = control_good + treatment_good, control_all + treatment_all
    null = sum(count * math.log(count / every) for count in (good, every - good) if count)
    return _log_mixture(control_good, control_all) + _log_mixture(treatment_good, treatment_all) - null


def _log_mixture(good: int, every: int) -> float:
    """Log-likelihood of a sequence of successes, the rate integrated out under Beta(1/2, 1/2)."""
    return (math.lgamma(good + 0.5) + math.lgamma(every - good + 0.5) - math.lgamma(every + 1.0)
            - 2.0 * math.lgamma(0.5) + math.lgamma(1.0))


def log_evidence(control: Arm, treatment: Arm) -> float:
    """Logarithm of the mean of the two ratios, of successes and of ratings; the mean of such ratios is one again."""
    ratios = (log_ratio(control.successes, control.outcomes, treatment.successes, treatment.outcomes),
              log_ratio(control.liked, control.rated, treatment.liked, treatment.rated))
    largest = max(ratios)
    return largest + math.log(sum(math.exp(ratio - largest) for ratio in ratios) / len(ratios))


def sample_ratio_p(control: int, treatment: int, share: float) -> float:
    """p-value of the assigned units against the share that was set (chi-square, one degree of freedom)."""
    every = control + treatment
    if not every:
        return 1.0
    deviation = treatment - share * every
    return math.erfc(abs(deviation) / math.sqrt(2.0 * every * share * (1.0 - share)))


def judge(control: Arm, treatment: Arm, share: float, evidence: float) -> Verdict:
    """Decide on what both arms have seen.

    Args:
        share: of the units that should get the treatment.
        evidence: of the verdict before.
    """
    fewest = min(control.outcomes, treatment.outcomes)
    if fewest < MINIMUM:
        return Verdict('', f'Too few outcomes: {fewest} of {MINIMUM} in the smaller arm.', evidence, None)
    evidence = max(evidence, log_evidence(control, treatment))
    p_value = min(1.0, math.exp(-evidence))
    ratio_p = sample_ratio_p(control.assigned, treatment.assigned, share)
    rates = (f'control {control.success_rate:.1%} of {control.outcomes}, treatment {treatment.success_rate:.1%} of '
             f'{treatment.outcomes} succeeded')
    if control.rated or treatment.rated:
        rates += f'; liked {control.liked_rate:.1%} of {control.rated} and {treatment.liked_rate:.1%} of ' \
                 f'{treatment.rated}'
    rates += f'; p = {p_value:.3g}'
    if ratio_p < RATIO_ALPHA:
        return Verdict('', f'Blocked: {treatment.assigned} of {control.assigned + treatment.assigned} sessions got the '
                       f'treatment, which does not fit the share {share:g} (p = {ratio_p:.2g}). {rates}.', evidence,
                       p_value)
    if p_value > ALPHA:
        return Verdict('', f'No difference is certain yet: {rates}.', evidence, p_value)
    if not _better(control, treatment):
        return Verdict('roll back', f'The control is better: {rates}.', evidence, p_value)
    if control.success_rate - treatment.success_rate > MORE_ERRORS:
        return Verdict('roll back', f'Guardrail: the treatment fails more often. {rates}.', evidence, p_value)
    if control.log_latency is not None and treatment.log_latency is not None:
        slower = math.exp(treatment.log_latency - control.log_latency)
        if slower > SLOWER:
            return Verdict('roll back', f'Guardrail: the treatment takes {slower:.2f} times as long. {rates}.',
                           evidence, p_value)
    return Verdict('promote', f'The treatment is better: {rates}.', evidence, p_value)


def _better(control: Arm, treatment: Arm) -> bool:
    """Whether the treatment is, in what tells the arms apart more clearly."""
    success = log_ratio(control.successes, control.outcomes, treatment.successes, treatment.outcomes)
    liked = log_ratio(control.liked, control.rated, treatment.liked, treatment.rated)
    if liked > success:
        return treatment.liked_rate > control.liked_rate
    return treatment.success_rate > control.success_rate
