"""The gradient attacks against a second, slow writing of each recursion: one image, float64, question by question."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import kstest
from torch import nn

from heatprint.attacks import make
from heatprint.attacks.access import WhiteBox
from heatprint.attacks.apgd import periods
from heatprint.attacks.parts.balls import random_point
from heatprint.attacks.parts.boundaries import onto_plane
from heatprint.attacks.parts.few_pixels import fewest, top_pixels
from heatprint.core.goals import FLIP, Criterion, targeted, untargeted
from heatprint.core.norms import project
from heatprint.core.protocols import silent
from heatprint.core.streams import Streams
from heatprint.core.values import Batch
from heatprint.models import predict, wrap

SIZE, COUNT = 4, 3
DUAL = {"l1": math.inf, "l2": 2, "linf": 1}
ORDER = {"l1": 1, "l2": 2, "linf": math.inf}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These images are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Watched(WhiteBox):
    """A white box that keeps every image it is asked about, by attacked image: for gradients, and for the rest."""

    def __init__(self, *given, **settings):
        super().__init__(*given, **settings)
        self.derived = [[] for _ in range(COUNT)]
        self.asked = [[] for _ in range(COUNT)]

    def _ask(self, images, rows):
        for row, image in zip(rows.tolist(), images, strict=True):
            self.asked[row].append(image.double().clone())
        return super()._ask(images, rows)

    def _derive(self, images, rows, *rest):
        for row, image in zip(rows.tolist(), images, strict=True):
            self.derived[row].append(image.detach().double().clone())
        return super()._derive(images, rows, *rest)


class Problem:
    """Images and a smooth network with curved boundaries, whose logits saturate."""

    def __init__(self, aim, criterion=FLIP, seed=0, scale=2.0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 12), nn.Tanh(), nn.Linear(12, 3))
            network[1].weight.data *= scale
            network[3].weight.data *= 4
            pixels = torch.randint(8, 248, (COUNT, 3, SIZE, SIZE)).to(torch.uint8)
        made = wrap(network, classes=["a", "b", "c"], size=SIZE)
        self.model = replace(made, network=copy.deepcopy(made.network).double())
        order = predict(self.model, pixels).argsort(1)
        self.batch = Batch(ids=("x", "y", "z"), pixels=pixels, labels=order[:, -1])
        own = self.batch.labels
        self.goal = targeted(own, order[:, 0], criterion) if aim else untargeted(own, criterion)
        self.streams = Streams(seed=3, purpose="twins", ids=self.batch.ids)

    def run(self, method):
        access = Watched(self.model, self.goal, self.batch.images)
        return method.perturb(access, self.batch.images, self.goal, streams=self.streams, progress=silent), access

    def each(self):
        """Row, image float64 [3, S, S], and its goal."""
        for row in range(COUNT):
            yield row, self.batch.images[row].double(), self.goal.take(torch.tensor([row]))

    def logits(self, x):
        return self.model(x[None])


class Best:
    """The nearest success of one image, or while there is none the largest margin."""

    def __init__(self, x):
        self.image, self.size, self.margin, self.first = x, math.inf, -math.inf, -1

    def see(self, image, goal, z, size, number, ties=False):
        margin, won = float(goal.margin(z)), bool(goal.reached(z))
        if won and self.first < 0:
            self.first = number
        if (won and (size < self.size or (ties and size == self.size))) or (
            not won and self.size == math.inf and margin > self.margin
        ):
            self.image, self.margin = image, margin
            self.size = size if won else math.inf
        return won


def slope(value, x):
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    return gradient


def norm_of(delta, order):
    return float(torch.linalg.vector_norm(delta.flatten(), ord=order))


def same_way(seen, expected, least=2):
    assert len(seen) == len(expected)
    assert len(expected) >= least
    for number, (one, other) in enumerate(zip(seen, expected, strict=True)):
        assert torch.allclose(one, other, atol=2e-5), f"question {number}"


def unsettled(monkeypatch, *modules):
    """The real-valued result: settling on the lattice is another part's matter."""
    for module in modules:
        monkeypatch.setattr(f"heatprint.attacks.{module}.settle", lambda access, images, attacked, rows: attacked)


CRITERIA = [FLIP, Criterion(margin=0.5)]


@pytest.mark.parametrize("criterion", CRITERIA, ids=["flip", "sure"])
@pytest.mark.parametrize("aim", [False, True])
def test_carlini_and_wagner_minimise_by_adam_in_the_space_of_tanh(monkeypatch, aim, criterion):
    unsettled(monkeypatch, "carlini_wagner")
    problem, kappa = Problem(aim, criterion), criterion.margin
    how = make("carlini-wagner", steps=45, searches=5, rate=0.02, start=0.02)
    made, access = problem.run(how)
    for row, x, goal in problem.each():
        points, best, c, low, high = [], Best(x), how.start, 0.0, math.inf
        for number in range(how.searches):
            w = torch.atanh((2 * x - 1) * 0.999999).requires_grad_(True)
            adam, before, won = torch.optim.Adam([w], lr=how.rate), math.inf, False
            for iteration in range(how.steps):
                image = (w.tanh() + 1) / 2
                z = problem.logits(image)
                loss = (image - x).square().sum() - c * goal.margin(z)[0].clamp_max(kappa)
                points.append(image.detach())
                size = norm_of(image.detach() - x, 2)
                won |= best.see(image.detach(), goal, z.detach(), size, number * how.steps + iteration)
                adam.zero_grad()
                loss.backward()
                adam.step()
                now = float(loss.detach())
                if iteration % 10 == 0:
                    if before < math.inf and not now < before - 1e-4 * abs(before):
                        break
                    before = now
            low, high = (low, min(c, high)) if won else (max(c, low), high)
            c = 10 * c if high == math.inf else (low + high) / 2
        same_way(access.derived[row], points)
        assert torch.allclose(made.images[row].double(), best.image, atol=2e-5)
        assert int(made.step[row]) == best.first


@pytest.mark.parametrize("rule", ["l1", "en", "l2"])
@pytest.mark.parametrize(("aim", "criterion"), [(False, FLIP), (True, FLIP), (False, CRITERIA[1])])
def test_ead_is_fista_with_a_binary_search(monkeypatch, rule, aim, criterion):
    unsettled(monkeypatch, "ead")
    problem, kappa = Problem(aim, criterion), criterion.margin
    how = make("ead", rule=rule, beta=0.01, steps=25, searches=5, step=0.03, start=0.3)
    made, access = problem.run(how)
    for row, x, goal in problem.each():
        slacks, points, best, c, low, high = [], [], Best(x), how.start, 0.0, math.inf
        for number in range(how.searches):
            current = slack = x
            won = False
            for k in range(how.steps):
                slacks.append(slack)

                def value(y, c=c, x=x, goal=goal):
                    f = (kappa - goal.margin(problem.logits(y))[0]).clamp_min(0)
                    return c * f + (y - x).square().sum()

                down = slack - how.step * math.sqrt(1 - k / how.steps) * slope(value, slack) - x
                moved = torch.where(down > 0.01, down - 0.01, torch.where(down < -0.01, down + 0.01, 0.0))
                moved = (x + moved).clamp(0, 1)
                slack, current = moved + k / (k + 3) * (moved - current), moved
                points.append(current)
                one, two = norm_of(current - x, 1), norm_of(current - x, 2)
                size = {"l1": one, "l2": two, "en": 0.01 * one + two**2}[rule]
                won |= best.see(current, goal, problem.logits(current), size, number * how.steps + k)
            low, high = (low, min(c, high)) if won else (c, high)
            c = 10 * c if high == math.inf else (low + high) / 2
        same_way(access.derived[row], slacks)
        same_way(access.asked[row], points)
        assert torch.allclose(made.images[row].double(), best.image, atol=2e-5)
        assert int(made.step[row]) == best.first


@pytest.mark.parametrize("aim", [False, True])
def test_ddn_follows_the_cross_entropy_and_keeps_the_length_apart(monkeypatch, aim):
    unsettled(monkeypatch, "ddn")
    problem, how = Problem(aim), make("ddn", steps=30, gamma=0.1, start=0.4)
    made, access = problem.run(how)
    for row, x, goal in problem.each():
        points, best, delta, radius = [], Best(x), torch.zeros_like(x), how.start
        for k in range(how.steps):
            points.append(x + delta)
            fell = best.see(x + delta, goal, problem.logits(x + delta), norm_of(delta, 2), k)
            sign = -1 if aim else 1
            g = slope(lambda y, s=sign, own=goal: s * F.cross_entropy(problem.logits(y), own.labels), x + delta)
            radius = min(radius, norm_of(delta, 2)) * 0.9 if fell else radius * 1.1
            delta = delta + max(0.5 * (1 + math.cos(math.pi * k / 30)), 0.01) * g / g.norm()
            delta = (x + radius * delta / delta.norm()).clamp(0, 1) - x
        same_way(access.derived[row], points)
        if best.first >= 0:
            assert torch.allclose(made.images[row].double(), best.image, atol=2e-5)
        else:
            assert torch.allclose(made.images[row].double(), x + delta, atol=2e-5), "the last attempt is kept"
        assert int(made.step[row]) == best.first


@pytest.mark.parametrize("norm", ["l0", "l1", "l2", "linf"])
@pytest.mark.parametrize(("aim", "criterion"), [(False, FLIP), (True, FLIP), (False, CRITERIA[1])])
def test_fmn_closes_in_on_the_boundary(monkeypatch, norm, aim, criterion):
    unsettled(monkeypatch, "fmn")
    monkeypatch.setattr("heatprint.attacks.fmn.prune", lambda access, images, attacked, rows: attacked)
    problem, how = Problem(aim, criterion), make("fmn", norm=norm, steps=24, step=0.6, gamma=0.2, slow=0.02)
    made, access = problem.run(how)

    def size_of(delta):
        return float((delta != 0).any(0).sum()) if norm == "l0" else norm_of(delta, ORDER[norm])

    for row, x, goal in problem.each():
        points, best, delta, radius = [], Best(x), torch.zeros_like(x), math.inf
        for k in range(how.steps):
            points.append(x + delta)
            z = problem.logits(x + delta)
            fell = best.see(x + delta, goal, z, size_of(delta), k, ties=True)
            g = slope(lambda y, own=goal: own.margin(problem.logits(y))[0], x + delta)
            lead = criterion.margin - float(goal.margin(z))
            pace = 0.5 * (1 + math.cos(math.pi * k / how.steps))
            found, gamma = best.size < math.inf, 0.02 + pace * (0.2 - 0.02)
            if not found and (lead > 0 or radius == math.inf):
                if norm == "l0":
                    radius = size_of(delta) + float(fewest(g[None], (x + delta)[None], torch.tensor([lead])))
                else:
                    far = size_of(delta) + max(lead, 0) / norm_of(g, DUAL[norm])
                    radius = min(far, norm_of(torch.ones_like(x), ORDER[norm]))
            else:
                rate = gamma if found else 0.5
                less, more = radius * (1 - rate), radius * (1 + rate)
                if norm == "l0":
                    less, more = max(min(math.floor(less), radius - 1), 1), max(math.floor(more), radius + 1)
                radius = min(less, best.size) if fell else more
            delta = delta + 0.6 * max(pace, 0.01) * g / g.norm()
            if norm == "l0":
                delta = delta * top_pixels(delta.square().sum(0)[None], torch.tensor([radius]))[0]
            else:
                delta = project(delta[None], norm, radius)[0]
            delta = (x + delta).clamp(0, 1) - x
        same_way(access.derived[row], points)
        expected = best.image if best.first >= 0 else x + delta
        assert torch.allclose(made.images[row].double(), expected, atol=2e-5)
        assert int(made.step[row]) == best.first


@pytest.mark.parametrize("aim", [False, True])
def test_sigma_zero_descends_on_the_smooth_count_of_pixels(monkeypatch, aim):
    unsettled(monkeypatch, "sigma_zero")
    monkeypatch.setattr("heatprint.attacks.sigma_zero.prune", lambda access, images, attacked, rows: attacked)
    problem, how = Problem(aim), make("sigma-zero", steps=30, step=0.2, sigma=0.01, threshold=0.05, change=0.1)
    made, access = problem.run(how)
    for row, x, goal in problem.each():
        points, best, delta, threshold = [], Best(x), torch.zeros_like(x), how.threshold
        for k in range(how.steps):
            points.append(x + delta)
            fell = best.see(x + delta, goal, problem.logits(x + delta), float((delta != 0).any(0).sum()), k)

            def value(y, fell=fell, x=x, goal=goal):
                square = (y - x).square().sum(0)
                count = (square / (square + how.sigma)).mean()
                return -count if fell else goal.margin(problem.logits(y))[0] - count

            g = slope(value, x + delta)
            stride = 0.2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * k / how.steps)))
            largest = float(g.abs().max())
            delta = (x + delta + stride * (g / largest if largest else g)).clamp(0, 1) - x
            threshold = min(max(threshold + 0.1 * stride * (1 if fell else -1), 0), 1)
            delta = delta * (delta.abs().amax(0, keepdim=True) >= threshold)
        same_way(access.derived[row], points)
        expected = best.image if best.first >= 0 else x + delta
        assert torch.allclose(made.images[row].double(), expected, atol=2e-5)
        assert int(made.step[row]) == best.first


def nearest_boundary(problem, goal, x, order, aim, sure):
    """Lead and gradient of the boundary that is nearest to first order."""
    z = problem.logits(x)[0]
    if aim:
        return sure - float(goal.margin(z[None])), slope(lambda y: goal.margin(problem.logits(y))[0], x)
    own, found = int(goal.labels), []
    for k in range(3):
        if k != own:
            g = slope(lambda y, k=k: problem.logits(y)[0, k] - problem.logits(y)[0, own], x)
            lead = float(z[own] - z[k]) + sure
            found.append((abs(lead) / norm_of(g, order), lead, g))
    _, lead, g = min(found, key=lambda one: one[0])
    return lead, g


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize(("aim", "criterion"), [(False, FLIP), (True, FLIP), (True, CRITERIA[1])])
@pytest.mark.parametrize("steps", [3, 50])
def test_deepfool_walks_from_boundary_to_boundary(monkeypatch, norm, aim, criterion, steps):
    unsettled(monkeypatch, "deepfool")
    problem, how = Problem(aim, criterion), make("deepfool", norm=norm, steps=steps, overshoot=0.05)
    made, access = problem.run(how)
    for row, x, goal in problem.each():
        points, current, fell = [], x, -1
        for iteration in range(steps + 1):
            won = bool(goal.reached(problem.logits(current)))
            if iteration < steps:
                points.append(current)
            if won:
                fell = iteration
            if won or iteration == steps:
                break
            lead, g = nearest_boundary(problem, goal, current, DUAL[norm], aim, criterion.margin)
            far = abs(lead) + 1e-4
            step = far / g.square().sum() * g if norm == "l2" else far / g.abs().sum() * g.sign()
            current = (x + 1.05 * ((current - x) / 1.05 + step)).clamp(0, 1)
        same_way(access.derived[row], points, least=1)
        assert torch.allclose(made.images[row].double(), current, atol=2e-5)
        assert int(made.step[row]) == fell


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize(("aim", "eps"), [(False, None), (True, None), (False, 0.02)])
def test_fab_mixes_two_projections_and_searches_the_last_segment(monkeypatch, norm, aim, eps):
    unsettled(monkeypatch, "fab")
    problem = Problem(aim)
    how = make("fab", norm=norm, steps=7, restarts=2, eps=eps, alpha_max=0.3, eta=1.1, beta=0.8)
    made, access = problem.run(how)
    for row, x, goal in problem.each():
        points, best, order = [], Best(x), ORDER[norm]
        for restart in range(2):
            current = x
            if restart:
                far = norm_of(best.image - x, order)
                far = far if eps is None else min(far, eps)
                drawn = random_point(problem.streams.of(row, 1), (3, SIZE, SIZE), norm, 1.0).double()
                current = (x + far / 2 * drawn / norm_of(drawn, order)).clamp(0, 1)
            for k in range(how.steps):
                lead, g = nearest_boundary(problem, goal, current, DUAL[norm], aim, 0.0)
                from_clean = lead + float((g * (current - x)).sum())
                change, direct = (
                    onto_plane(at[None], g[None], torch.tensor([rise], dtype=torch.float64), norm)[0]
                    for at, rise in ((current, lead), (x, from_clean))
                )
                size, whole = norm_of(change, order), norm_of(direct, order)
                weight = min(size / (size + whole), 0.3)
                current = (1 - weight) * (current + 1.1 * change) + weight * (x + 1.1 * direct)
                current = current.clamp(0, 1)
                points.append(current)
                far = norm_of(current - x, order)
                if best.see(current, goal, problem.logits(current), far, restart * how.steps + k):
                    current = x + 0.8 * (current - x)
        if best.first >= 0:
            points.append(x)
            low, high, below, above = 0.0, 1.0, float(goal.margin(problem.logits(x))), best.margin
            end = best.image
            for _ in range(3):
                share = min(max(1.05 * -below / (above - below), 0.05), 0.95)
                middle = low + share * (high - low)
                points.append(x + middle * (end - x))
                z = problem.logits(points[-1])
                if bool(goal.reached(z)):
                    high, above = middle, float(goal.margin(z))
                else:
                    low, below = middle, min(float(goal.margin(z)), 0.0)
            best.image = x + high * (end - x)
        same_way(access.asked[row], points)
        assert torch.allclose(made.images[row].double(), best.image, atol=2e-5)
        assert int(made.step[row]) == best.first


def losses(name, aim):
    def margin(z, goal):
        return goal.margin(z)[0]

    def cross_entropy(z, goal):
        own, others = z[0, goal.labels[0]], [z[0, k] for k in range(3) if k != int(goal.labels[0])]
        return (1 if aim else -1) * (own - torch.stack(others).logsumexp(0))

    def dlr(z, goal):
        ordered = z[0].sort(descending=True).values
        return goal.margin(z)[0] / (ordered[0] - ordered[2])

    return {"margin": margin, "cross_entropy": cross_entropy, "dlr": dlr}[name]


def algorithm_1(value, x, start, norm, eps, steps):
    """The iterates of one start of APGD, from a loss and its slope. The first value counts as a rise."""

    def back(y):
        return (x + project((y - x)[None], norm, eps)[0]).clamp(0, 1)

    current = previous = start
    size, before, last, rises = 2 * eps, -math.inf, 0, 0
    top, at = (-math.inf, None, None), (2 * eps, -math.inf)
    for k in range(steps):
        yield current
        now, g = float(value(current)), slope(value, current)
        rises, before = rises + (now > before), now
        if now > top[0]:
            top = (now, current, g)
        if k in periods(steps):
            stalled = rises < 0.75 * (k - last) or (size, top[0]) == at
            at, rises, last = (size, top[0]), 0, k
            if stalled:
                size, (before, current, g) = size / 2, top
        z = back(current + size * (g.sign() if norm == "linf" else g / g.norm()))
        if k:
            z = back(current + 0.75 * (z - current) + 0.25 * (current - previous))
        previous, current = current, z
    yield current


@pytest.mark.parametrize(("norm", "eps"), [("linf", 3 / 255), ("l2", 0.05)])
@pytest.mark.parametrize(("loss", "aim"), [("margin", True), ("cross_entropy", True), ("dlr", False)])
def test_apgd_is_algorithm_1(norm, eps, loss, aim):
    """With a criterion that nothing meets, so that every start runs to its end."""
    problem, value = Problem(aim, Criterion(margin=99.0), scale=4.0), losses(loss, aim)
    made, access = problem.run(make("apgd", norm=norm, eps=eps, loss=loss, steps=30, restarts=2))
    for row, x, goal in problem.each():

        def raised(y, goal=goal):
            return value(problem.logits(y), goal)

        far = (x + random_point(problem.streams.of(row, 1), (3, SIZE, SIZE), norm, eps).double()).clamp(0, 1)
        walks = [list(algorithm_1(raised, x, start, norm, eps, 30)) for start in (x, far)]
        same_way(access.derived[row], [point for walk in walks for point in walk[:-1]])
        same_way(access.asked[row], [walk[-1] for walk in walks])
        best = max(
            (point for walk in walks for point in walk), key=lambda y, own=goal: own.margin(problem.logits(y))[0]
        )
        assert (made.images[row].double() - best).abs().max() < (0.51 if norm == "linf" else 1.01) / 255
    assert (made.step == -1).all()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 4 / 255), ("l2", 0.1), ("l1", 0.5)])
@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
@pytest.mark.parametrize("blind", [False, True])
def test_pgd_climbs_from_each_start_and_keeps_the_best_of_all(norm, eps, loss, blind):
    problem, value = Problem(True, Criterion(margin=99.0)), losses(loss, True)
    starts = 1 if blind else 3
    how = make("pgd", norm=norm, eps=eps, step=eps / 3, steps=6, restarts=starts, loss=loss, random_start=not blind)
    made, access = problem.run(how)
    for row, x, goal in problem.each():
        points, best = [], (-math.inf, x)
        for restart in range(starts):
            drawn = random_point(problem.streams.of(row, restart), (3, SIZE, SIZE), norm, eps).double()
            current = x if blind else (x + drawn).clamp(0, 1)
            for k in range(7):
                best = max(best, (float(goal.margin(problem.logits(current))), current), key=lambda one: one[0])
                if k < 6:
                    points.append(current)
                    g = slope(lambda y, own=goal: value(problem.logits(y), own), current)
                    way = {"linf": g.sign(), "l2": g / g.norm(), "l1": (g.abs() == g.abs().max()) * g.sign()}[norm]
                    current = (x + project((current - x + eps / 3 * way)[None], norm, eps)[0]).clamp(0, 1)
        same_way(access.derived[row], points)
        assert (made.images[row].double() - best[1]).abs().max() < (0.51 if norm == "linf" else 1.01) / 255


def test_ascents_stop_at_the_first_8_bit_success():
    """What reaches the goal only between two levels is not one; the iteration of the first is told."""
    for name, settings in (("pgd", {"random_start": False}), ("apgd", {}), ("mifgsm", {}), ("smooth-sign", {})):
        problem = Problem(False)
        how = make(name, eps="40/255", steps=40, **settings)
        made, access = problem.run(how)
        assert (made.step >= 0).any(), name
        for row, x, goal in problem.each():
            image = made.images[row].double()
            assert torch.allclose((image * 255).round() / 255, image, atol=1e-6)
            if made.step[row] >= 0:
                assert bool(goal.reached(problem.logits(image)))
                assert len(access.derived[row]) <= int(made.step[row]) + 1
                for earlier in access.derived[row][: int(made.step[row])]:
                    level = x + ((earlier - x) * 255).round() / 255
                    assert not bool(goal.reached(problem.logits(level.clamp(0, 1)))), name
            else:
                assert len(access.derived[row]) == 40


@pytest.mark.parametrize("aim", [False, True])
def test_the_smooth_sign_attack_moves_by_the_sign_of_the_blurred_slope(aim):
    problem, how = Problem(aim, Criterion(margin=99.0)), make("smooth-sign", eps="5/255", steps=8, width=3)
    made, access = problem.run(how)
    for row, x, goal in problem.each():
        points, current = [], x
        for _ in range(8):
            points.append(current)
            g = slope(lambda y, own=goal: own.margin(problem.logits(y))[0], current).mean(0)
            way = torch.empty_like(g)
            for r in range(SIZE):
                for c in range(SIZE):
                    way[r, c] = g[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2].mean().sign()
            current = (x + (current - x + way / 255).clamp(-5 / 255, 5 / 255)).clamp(0, 1)
        same_way(access.derived[row], points)
        assert (made.images[row].double() - current).abs().max() < 0.01 / 255


@pytest.mark.parametrize("aim", [False, True])
@pytest.mark.parametrize("theta", [1.0, 90 / 255])
def test_jsma_paints_the_pixel_that_papernots_map_ranks_first(aim, theta):
    """A map of 2 x 16 scores in a loop; untargeted the strongest other class is the target of each step."""
    problem, how = Problem(aim, scale=1.0), make("jsma", theta=theta, gamma=0.4, prune=False)
    made, _ = problem.run(how)
    most, stride = int(0.4 * 16), max(1, round(theta * 255)) / 255
    for row, x, goal in problem.each():
        current, course, fell = x.clone(), {}, -1
        for moves in range(most * math.ceil(1 / stride) + 1):
            z = problem.logits(current)
            if bool(goal.reached(z)):
                fell = moves
                break
            target = (
                int(goal.labels) if aim else max((k for k in range(3) if k != int(goal.labels)), key=lambda k: z[0, k])
            )
            own = slope(lambda y, k=target: problem.logits(y)[0, k], current).sum(0).flatten()
            rest = (
                slope(lambda y, k=target: problem.logits(y).sum() - problem.logits(y)[0, k], current).sum(0).flatten()
            )
            scores, weaker = {}, {}
            for way in (1, -1):
                for p in range(16):
                    channels = current.flatten(1)[:, p]
                    room = bool(channels.min() < 1) if way > 0 else bool(channels.max() > 0)
                    if not room or course.get(p) == -way or (len(course) >= most and p not in course):
                        continue
                    up, down = float(way * own[p]), float(-way * rest[p])
                    if up > 0 and down > 0:
                        scores[p, way] = up * down
                    if up + down > 0:
                        weaker[p, way] = up + down
            if not (scores or weaker):
                break
            pixel, way = max(scores or weaker, key=(scores or weaker).get)
            course[pixel] = way
            moved = (current.flatten(1)[:, pixel] + way * stride).clamp(0, 1)
            current.flatten(1)[:, pixel] = (moved * 255).round() / 255
        assert torch.allclose(made.images[row].double(), current, atol=1e-6)
        assert int(made.step[row]) == fell


@pytest.mark.parametrize("aim", [False, True])
def test_the_ramp_of_fgsm_is_a_loop_over_whole_gains(aim):
    problem, levels = Problem(aim, scale=4.0), 120
    made, access = problem.run(make("fgsm", eps=f"{levels}/255", exact=True))
    seen = set()
    for row, x, goal in problem.each():
        way = slope(lambda y, own=goal: own.cross_entropy(problem.logits(y))[0], x).sign()
        fell = [bool(goal.reached(problem.logits((x + k / 255 * way).clamp(0, 1)))) for k in range(1, levels + 1)]
        first = fell.index(True) if any(fell) else None
        assert int(made.step[row]) == (-1 if first is None else first + 1)
        assert int(made.trace["flips"][row]) == sum(fell)
        assert bool(made.trace["unflip"][row]) == (first is not None and not all(fell[first:]))
        gain = levels if first is None else first + 1
        assert torch.allclose(made.images[row].double(), (x + gain / 255 * way).clamp(0, 1), atol=1e-6)
        seen.add((first is None, bool(made.trace["unflip"][row])))
        if first is None:
            assert made.trace["gain"][row] == math.inf
            continue
        low, high = first / 255, (first + 1) / 255
        for _ in range(10):
            middle = (low + high) / 2
            if bool(goal.reached(problem.logits((x + middle * way).clamp(0, 1)))):
                high = middle
            else:
                low = middle
        assert float(made.trace["gain"][row]) == pytest.approx(high, abs=1e-7)
    assert len(access.derived[0]) == 1


@pytest.mark.parametrize("norm", ORDER)
def test_starts_are_drawn_uniformly_from_the_ball(norm):
    """The share of the ball within r is (r / eps) ** D, and no direction or sign is preferred."""
    rng = np.random.default_rng(0)
    drawn = torch.stack([random_point(rng, (3, 2, 1), norm, 0.7) for _ in range(3000)]).flatten(1).double()
    size = torch.linalg.vector_norm(drawn, ord=ORDER[norm], dim=1)
    assert size.max() <= 0.7 + 1e-6
    assert kstest((size / 0.7) ** 6, "uniform").pvalue > 0.01
    spread = drawn.abs().mean(0)
    assert (spread / spread.mean() - 1).abs().max() < 0.08
    assert (drawn.mean(0) / drawn.std(0)).abs().max() < 4 / math.sqrt(3000)
