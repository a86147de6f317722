"""The attacks that only ask, against a second, slow writing: one image, float64, with the numbers the attack draws."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from heatprint.attacks import make
from heatprint.attacks.access import WhiteBox
from heatprint.attacks.ledger import Budget, Clock, Ledger, Spent, Tally
from heatprint.attacks.parts import decision
from heatprint.attacks.parts.evolution import PRESETS, children, draw, first_population, read, upper
from heatprint.attacks.parts.rounding import fit, settle
from heatprint.attacks.square import bumps, window_side
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Criterion, targeted, untargeted
from heatprint.core.norms import length
from heatprint.core.protocols import silent
from heatprint.core.streams import Streams
from heatprint.core.values import Batch
from heatprint.models import predict, wrap

COUNT = 3
NEVER = Criterion(margin=99.0)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These images are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Watched(WhiteBox):
    """A handle that keeps every image it is asked about, by attacked image."""

    def __init__(self, *given, **settings):
        super().__init__(*given, **settings)
        self.asked = [[] for _ in range(COUNT)]

    def _ask(self, images, rows):
        for row, image in zip(rows.tolist(), images, strict=True):
            self.asked[row].append(image.double().clone())
        return super()._ask(images, rows)


class Problem:
    """Images and a smooth network with curved boundaries."""

    def __init__(self, aim=False, criterion=None, seed=0, size=6):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = nn.Sequential(nn.Flatten(), nn.Linear(3 * size**2, 12), nn.Tanh(), nn.Linear(12, 3))
            network[1].weight.data *= 2
            network[3].weight.data *= 4
            pixels = torch.randint(8, 248, (COUNT, 3, size, size)).to(torch.uint8)
        made = wrap(network, classes=["a", "b", "c"], size=size)
        self.model, self.size = replace(made, network=copy.deepcopy(made.network).double()), size
        order = predict(self.model, pixels).argsort(1)
        self.batch = Batch(ids=("x", "y", "z"), pixels=pixels, labels=order[:, -1])
        own, given = self.batch.labels, [] if criterion is None else [criterion]
        self.goal = targeted(own, order[:, 0], *given) if aim else untargeted(own, *given)
        self.streams = Streams(seed=3, purpose="twins", ids=self.batch.ids)

    def access(self, **settings):
        return Watched(self.model, self.goal, self.batch.images, **settings)

    def run(self, method):
        access = self.access()
        return method.perturb(access, self.batch.images, self.goal, streams=self.streams, progress=silent), access

    def each(self):
        """Row, image float64 [3, S, S], and its goal."""
        for row in range(COUNT):
            yield row, self.batch.images[row].double(), self.goal.take(torch.tensor([row]))

    def fell(self, goal, x):
        return bool(goal.reached(self.model(x[None])))

    def margin(self, goal, x):
        return float(goal.margin(self.model(x[None])))


def same_way(seen, expected):
    assert len(seen) == len(expected) > 1
    for number, (one, other) in enumerate(zip(seen, expected, strict=True)):
        assert torch.allclose(one, other, atol=2e-5), f"question {number}"


# Square


def cornered(x, signs, radius):
    return ((x * 255).round() + signs * round(radius * 255)).clamp(0, 255) / 255


def sign_of(number):
    return 1.0 if number >= 0.5 else -1.0


@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
@pytest.mark.parametrize("aim", [False, True])
def test_square_sets_one_square_after_another(aim, loss):
    """Stripes first; then a square whose place and signs are eight numbers of its query, 64 queries to a stream."""
    problem = Problem(aim, NEVER)
    how = make("square", eps="12/255", queries=140, share=0.5, loss=loss)
    made, access = problem.run(how)
    size = problem.size
    for row, x, goal in problem.each():

        def value(y, goal=goal):
            z = problem.model(y[None])
            return float(goal.margin(z) if loss == "margin" else goal.cross_entropy(z))

        stripes = problem.streams.of(row).random((3, 1, size), np.float32)
        current = cornered(x, torch.tensor([[[sign_of(d) for d in line] for line in c] for c in stripes]), 12 / 255)
        points, best = [current], value(current)
        for query in range(1, how.queries):
            if (query - 1) % 64 == 0:
                block = problem.streams.of(row, 1 + (query - 1) // 64).random((64, 8), np.float32)
            d = block[(query - 1) % 64]
            side = window_side(how.share_at(query), size)
            top, left = (min(int(number * (size - side + 1)), size - side) for number in d[:2])
            moved = current.clone()
            for turn in (1, -1):
                signs = turn * torch.tensor([sign_of(number) for number in d[2:5]]).view(3, 1, 1)
                window = (slice(None), slice(top, top + side), slice(left, left + side))
                moved[window] = cornered(x, signs.expand_as(x), 12 / 255)[window]
                if not torch.allclose(moved, current, atol=1e-6):
                    break
            points.append(moved)
            if value(moved) > best:
                current, best = moved, value(moved)
        same_way(access.asked[row], points)
        assert torch.allclose(made.images[row].double(), current, atol=1e-6)
    assert (made.step == -1).all()


def test_square_l2_moves_mass_between_two_windows(monkeypatch):
    """Algorithm 3 of the paper in loops; rounding is left out."""
    monkeypatch.setattr("heatprint.attacks.square.fit", lambda images, attacked, norm, eps: attacked)
    problem, radius = Problem(True, NEVER, size=12), 0.9
    how = make("square", norm="l2", eps=radius, queries=45, share=0.3)
    made, access = problem.run(how)
    size = 12
    for row, x, goal in problem.each():
        draws = problem.streams.of(row).random((3, 5, 5), np.float32)
        grid = torch.zeros(3, size, size, dtype=torch.float64)
        for c in range(3):
            for i in range(5):
                for j in range(5):
                    tile = sign_of(draws[c, i, j]) * bumps(2).double()
                    grid[c, 1 + 2 * i : 3 + 2 * i, 1 + 2 * j : 3 + 2 * j] = tile
        current = (x + radius * grid / grid.norm()).clamp(0, 1)
        points, best = [], -math.inf
        for query in range(how.queries):
            tried = current
            if query:
                if (query - 1) % 64 == 0:
                    block = problem.streams.of(row, 1 + (query - 1) // 64).random((64, 8), np.float32)
                tried = moved_l2(x, current, block[(query - 1) % 64], how.share_at(query), radius)
            points.append(tried)
            if problem.margin(goal, tried) > best:
                current, best = tried, problem.margin(goal, tried)
        same_way(access.asked[row], points)
        assert torch.allclose(made.images[row].double(), current, atol=2e-5)


def moved_l2(x, current, d, share, radius):
    size = x.shape[-1]
    side = window_side(share, size, odd=True)
    delta = current - x
    at = [min(int(number * (size - side + 1)), size - side) for number in d[:4]]
    first, second = ((slice(None), slice(at[i], at[i] + side), slice(at[i + 1], at[i + 1] + side)) for i in (0, 2))
    either = torch.zeros_like(delta)
    either[first], either[second] = 1, 1
    unused = max(radius**2 - float(delta.square().sum()), 0)
    held = (delta * either).square().sum((1, 2))
    inside = delta[first].clone()
    pair = bumps(side).double()
    pair = pair.T if d[7] < 0.5 else pair
    moved = delta.clone()
    moved[second] = 0
    for c in range(3):
        fresh = sign_of(d[4 + c]) * pair + inside[c] / max(float(inside[c].norm()), 1e-12)
        moved[first][c] = fresh / max(float(fresh.norm()), 1e-12) * math.sqrt(float(held[c]) + unused / 3)
    long = float(moved.norm())
    return (x + moved * min(1, radius / long)).clamp(0, 1)


def test_windows_lie_everywhere_and_nowhere_else():
    from heatprint.attacks.square import _window

    places = torch.tensor([[[a, b] for a in (0.0, 0.26, 0.51, 0.99999994) for b in (0.0, 0.76)]])[0]
    mask, row, column = _window(places, 3, 6)
    assert row.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert column.tolist() == [0, 3] * 4
    for one, top, left in zip(mask, row.tolist(), column.tolist(), strict=True):
        expected = torch.zeros(1, 6, 6, dtype=torch.bool)
        expected[:, top : top + 3, left : left + 3] = True
        assert torch.equal(one, expected)


# SimBA


@pytest.mark.parametrize(("basis", "share"), [("pixel", 1.0), ("dct", 0.5)])
@pytest.mark.parametrize("aim", [False, True])
def test_simba_tries_each_direction_forth_and_back(basis, share, aim):
    problem = Problem(aim, NEVER)
    how = make("simba", basis=basis, share=share, step=0.1, queries=60)
    made, access = problem.run(how)
    size, width = problem.size, 6 if basis == "pixel" else 3
    for row, x, goal in problem.each():

        def value(y, goal=goal):
            return float(goal.log_probability(problem.model(y[None])))

        points, delta, best, moves = [x], torch.zeros_like(x), value(x), 0
        for number in problem.streams.of(row).permutation(3 * width**2)[:60]:
            channel, place = divmod(int(number), width**2)
            wave = torch.zeros_like(x)
            if basis == "pixel":
                wave[channel, place // width, place % width] = round(0.1 * 255) / 255
            else:
                axes = []
                for frequency in divmod(place, width):
                    line = [math.cos(math.pi / size * (n + 0.5) * frequency) for n in range(size)]
                    axes.append(torch.tensor(line, dtype=torch.float64))
                    axes[-1] /= axes[-1].norm()
                wave[channel] = 0.1 * torch.outer(*axes)
            for sign in (1, -1):
                if len(points) >= 60:
                    break
                tried = (x + delta + sign * wave).clamp(0, 1)
                points.append(tried)
                if value(tried) > best:
                    delta, best, moves = delta + sign * wave, value(tried), moves + 1
                    break
        same_way(access.asked[row], points)
        assert torch.allclose(made.images[row].double(), (x + delta).clamp(0, 1), atol=2e-5)
        assert int(made.trace["moves"][row]) == moves > 3


# Labels only


def test_pictures_to_start_from_are_of_six_kinds():
    image = torch.rand((3, 8, 6), generator=torch.Generator().manual_seed(0))
    drawn = [decision.draw(np.random.default_rng(number), image, number) for number in range(12)]
    assert all(one.shape == image.shape and float(one.min()) >= 0 and float(one.max()) <= 1 for one in drawn)
    for first in (0, 6):
        fine, black, coarse, coarse_black, negative, flat = drawn[first : first + 6]
        assert len(fine.unique()) == 144
        assert len(black.unique()) == len(coarse_black.unique()) == 2
        cells = [int((coarse.diff(dim=d) != 0).any(0).any(2 - d).sum()) + 1 for d in (1, 2)]
        assert cells[0] == cells[1], "as many cells down as across"
        assert cells[0] in (2, 3), "up to half as many as pixels"
        assert float((negative - (1 - image)).abs().max()) <= 0.5
        assert torch.corrcoef(torch.stack([negative.flatten(), image.flatten()]))[0, 1] < -0.5
        assert torch.equal(flat, flat[:, :1, :1].expand_as(flat))
        assert len(flat.unique()) == 3


def halved(fell, x, far, norm, gap, order):
    """Bisection of one image between x and far, in a loop."""
    change, best, points = far - x, far, []
    size = float(torch.linalg.vector_norm(change.flatten(), ord=order))
    low, high = 0.0, 1.0
    for _ in range(30):
        if (high - low) * size <= gap:
            break
        middle = (low + high) / 2
        bound = middle * float(change.abs().max())
        tried = x + (middle * change if norm == "l2" else change.clamp(-bound, bound))
        points.append(tried)
        if fell(tried):
            best, high = tried, middle
        else:
            low = middle
    return best, points


def started(problem, goal, row, x, tries):
    rng, points, nearest = problem.streams.of(row), [], (math.inf, x)
    for number in range(tries):
        drawn = decision.draw(rng, x.float(), number).double()
        points.append(drawn)
        if problem.fell(goal, drawn):
            return drawn, number, points
        nearest = min(nearest, (float((drawn - x).norm()), drawn), key=lambda one: one[0])
    return nearest[1], -1, points


@pytest.mark.parametrize("aim", [False, True])
def test_the_boundary_attack_walks_along_the_boundary(monkeypatch, aim):
    monkeypatch.setattr("heatprint.attacks.boundary.settle", lambda access, images, attacked, rows: attacked)
    problem = Problem(aim, size=4)
    how = make("boundary", queries=80, orthogonal=0.1, towards=0.05)
    made, access = problem.run(how)
    for row, x, goal in problem.each():
        current, number, points = started(problem, goal, row, x, how.tries)
        assert number >= 0
        assert int(made.step[row]) == number
        gap = 1e-4 * math.sqrt(48)
        asked = number + 1 + max(math.ceil(math.log2(float((current - x).norm()) / gap)), 0)
        current, more = halved(lambda y, own=goal: problem.fell(own, y), x, current, "l2", gap, 2)
        points += more
        rng, sideways, inwards = problem.streams.of(row, 1), 0.1, 0.05
        while asked < 80:
            way = current - x
            noise = torch.from_numpy(rng.standard_normal((3, 4, 4), dtype=np.float32)).double()
            noise = noise - (noise * way).sum() / way.square().sum() * way
            moved = way + sideways * way.norm() * noise / noise.norm()
            moved = (x + moved * way.norm() / moved.norm()).clamp(0, 1)
            points.append(moved)
            asked += 1
            kept = problem.fell(goal, moved)
            sideways = min(max(sideways * math.exp(0.2 * (kept - 0.5)), boundary_limits()[0]), boundary_limits()[1])
            if not kept:
                continue
            current = moved
            if asked < 80:
                nearer = x + (1 - inwards) * (moved - x)
                points.append(nearer)
                asked += 1
                hit = problem.fell(goal, nearer)
                current = nearer if hit else current
                inwards = min(max(inwards * math.exp(0.2 * (hit - 0.25)), boundary_limits()[0]), boundary_limits()[1])
        same_way(access.asked[row], points)
        assert torch.allclose(made.images[row].double(), current, atol=2e-5)


def boundary_limits():
    from heatprint.attacks.boundary import LEAST, MOST

    return LEAST, MOST


def estimated(fell, current, delta, count, rng):
    """The direction into the adversarial side, from labels of probes, and the probes."""
    labels, probes = [], []
    for first in range(0, count, 16):
        for noise in torch.from_numpy(
            rng.standard_normal((min(16, count - first), 3, 4, 4), dtype=np.float32)
        ).double():
            probes.append((current + delta * noise / noise.norm()).clamp(0, 1))
            labels.append(2.0 * fell(probes[-1]) - 1)
    mean = sum(labels) / count
    mean = 0.0 if abs(mean) == 1 else mean
    return sum((a - mean) * (probe - current) / delta for a, probe in zip(labels, probes, strict=True)), probes


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("aim", [False, True])
def test_hopskipjump_estimates_jumps_and_halves(monkeypatch, norm, aim):
    """Three iterations of algorithm 2; noise is drawn in blocks of 16 probes."""
    monkeypatch.setattr("heatprint.attacks.hopskipjump.settle", lambda access, images, attacked, rows: attacked)
    problem, order = Problem(aim, size=4), 2 if norm == "l2" else math.inf
    made, access = problem.run(make("hopskipjump", norm=norm, iterations=3, probes=20))
    for row, x, goal in problem.each():

        def fell(y, goal=goal):
            return problem.fell(goal, y)

        def far(y, x=x):
            return float(torch.linalg.vector_norm((y - x).flatten(), ord=order))

        def radius(y, x=x):
            return max(float((y - x).norm()) / 48, 1e-4 * math.sqrt(48))

        def nearer(y, x=x, fell=fell, radius=radius):
            gap = max(radius(y) / (math.sqrt(48) if norm == "l2" else 48), 1e-6)
            return halved(fell, x, y, norm, gap, order)

        current, number, points = started(problem, goal, row, x, 100)
        assert int(made.step[row]) == number
        current, more = nearer(current)
        points += more
        best = current
        for t in (1, 2, 3):
            rng, count = problem.streams.of(row, t), int(20 * math.sqrt(t))
            normal, more = estimated(fell, current, radius(current), count, rng)
            points += more
            normal = normal / normal.norm() if norm == "l2" else normal.sign()
            size = far(current) / math.sqrt(t)
            for _ in range(20):
                points.append((current + size * normal).clamp(0, 1))
                if fell(points[-1]):
                    current = points[-1]
                    break
                size /= 2
            current, more = nearer(current)
            points += more
            best = current if far(current) < far(best) else best
        assert all(torch.allclose(a, b, atol=5e-4) for a, b in zip(access.asked[row], points, strict=True))
        assert torch.allclose(made.images[row].double(), best, atol=5e-4)


# Differential evolution


@pytest.mark.parametrize("preset", PRESETS)
def test_children_are_those_of_storn_and_price(preset):
    """In loops, and whatever leaves the range is clipped, or drawn again."""
    how = replace(PRESETS[preset], population=7)
    rngs = [np.random.default_rng(i) for i in (0, 1)]
    side, population = 5, torch.from_numpy(np.stack([first_population(rng, how, 2, 5) for rng in rngs]))
    fitness = torch.from_numpy(np.stack([rng.random(7, np.float32) for rng in rngs]))
    draws = [draw(rng, how, 2) for rng in rngs]
    born = children(population, fitness, draws, how, side)
    top, out = upper(side), 0
    for i in range(2):
        best = population[i, int(fitness[i].argmax())]
        assert how.weight[0] <= draws[i].weight <= how.weight[1]
        for p in range(7):
            a, b, c = (population[i, k] for k in draws[i].partners[p])
            child = best + draws[i].weight * (a - b) if preset == "scipy" else a + draws[i].weight * (b - c)
            for gene in np.ndindex(2, 5):
                value, most = float(child[gene]), float(top[gene[1]])
                if not 0 <= value <= most:
                    out += 1
                    value = float(draws[i].fresh[p][gene]) * most if preset == "scipy" else min(max(value, 0), most)
                assert float(born[i, p][gene]) == pytest.approx(value, abs=1e-3)
    assert out > 5


def test_a_first_population_fills_the_range():
    top = upper(9)
    assert top.tolist() == [np.nextafter(np.float32(9), np.float32(0))] * 2 + [255] * 3
    genes = first_population(np.random.default_rng(0), replace(PRESETS["scipy"], population=50), 2, 9).reshape(50, 10)
    ranks = (genes / np.tile(top, 2) * 50).astype(int)
    assert all(sorted(column) == list(range(50)) for column in ranks.T), "one of each fiftieth: a Latin hypercube"
    genes = first_population(np.random.default_rng(0), replace(PRESETS["paper"], population=4000), 1, 9)[:, 0]
    places, colours = genes[:, :2], genes[:, 2:]
    assert abs(places.mean() - 4.5) < 0.1
    assert abs(places.std() - 9 / math.sqrt(12)) < 0.1
    inside = colours[(colours > 0) & (colours < 255)]
    assert abs(np.median(colours) - 128) < 4
    assert abs(len(inside) / colours.size - 0.685) < 0.02, "of N(128, 127) that is one standard deviation"
    rows, columns, levels = read(torch.tensor([[8.999, 0.2, 12.6, 0.4, 254.5]]))
    assert (rows.tolist(), columns.tolist(), levels.tolist()) == ([8], [0], [[13.0, 0.0, 254.0]])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("pixels", [1, 3])
def test_one_pixel_is_survival_of_the_fitter_in_a_loop(preset, pixels):
    problem = Problem(True, size=4)
    how = make("one-pixel", preset=preset, pixels=pixels, population=9, generations=5)
    made, access = problem.run(how)
    for row, x, goal in problem.each():
        strategy, levels = how.strategy, (x * 255).round()

        def painted(genes, levels=levels):
            image = levels.clone()
            for y, c, *colour in genes.tolist():
                image[:, int(y), int(c)] = torch.tensor(colour, dtype=torch.float64).round()
            return image / 255

        def value(genes, x=x, goal=goal, painted=painted):
            image = painted(genes)
            if torch.equal(image, x):
                return -math.inf, False
            z = problem.model(image[None])
            return float(goal.log_probability(z)), bool(goal.reached(z))

        population, fitness, fell, chosen = None, None, -1, None
        for age in range(6):
            rng = problem.streams.of(row, age)
            if age == 0:
                born = torch.from_numpy(first_population(rng, strategy, pixels, 4))
            else:
                born = children(population[None], fitness[None], [draw(rng, strategy, pixels)], strategy, 4)[0]
            told = [value(child.double()) for child in born]
            scores = torch.tensor([score for score, _ in told])
            wins = torch.ones(9, dtype=torch.bool) if age == 0 else scores > fitness
            population = born if age == 0 else torch.where(wins[:, None, None], born, population)
            fitness = scores if age == 0 else torch.where(wins, scores, fitness)
            if any(won for _, won in told):
                best = max((i for i in range(9) if told[i][1]), key=lambda i: told[i][0])
                fell, chosen = age, born[best]
                break
        chosen = population[int(fitness.argmax())] if chosen is None else chosen
        assert int(made.step[row]) == fell
        assert torch.allclose(made.images[row].double(), painted(chosen.double()), atol=1e-6)
        assert int(access.ledger.forwards[row]) == 9 * ((5 if fell < 0 else fell) + 1)


def test_a_cap_holds_colours_near_the_old_ones():
    problem = Problem(True, NEVER, size=4)
    for cap in (1, 20, 255):
        made, _ = problem.run(make("one-pixel", population=20, generations=3, cap=cap))
        moved = ((made.images - problem.batch.images) * 255).abs().round()
        assert int(moved.max()) <= cap
        assert int(moved.max()) > cap / 3


# Rounding


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_fitted_images_use_up_the_radius_largest_fractions_first(norm):
    """In a loop over channels: each is cut to its level, then raised while the radius allows."""
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand((20, 3, 3, 3), generator=generator) * 155 + 50).round() / 255
    made = images + (torch.rand((20, 3, 3, 3), generator=generator) - 0.5) * 8 / 255
    eps = {"l1": 40.3, "l2": 9.1, "linf": 3.0}[norm] / 255
    order = {"l1": 1, "l2": 2, "linf": math.inf}[norm]
    size = torch.linalg.vector_norm((made - images).flatten(1), ord=order, dim=1)
    made = images + (made - images) * (eps / size).clamp_max(1).view(-1, 1, 1, 1)
    fitted = fit(images, made, norm, eps)
    for clean, want, got in zip(images, made, fitted, strict=True):
        change = ((want - clean) * 255).flatten().double()
        levels = (change.abs() + 1e-4).floor()
        fraction = change.abs() - levels
        raised = []
        for i in fraction.argsort(descending=True, stable=True).tolist():
            after = levels.clone()
            after[[*raised, i]] += 1
            long = float(torch.linalg.vector_norm(after, ord=order))
            if norm == "linf":
                if fraction[i] > 0.5 and float(after[i]) <= eps * 255 + 1e-4:
                    raised.append(i)
            elif long <= eps * 255 + 1e-6:
                raised.append(i)
            else:
                break  # in falling order of fractions: what comes later is not raised past one that was not
        levels[[i for i in raised if fraction[i] > 1e-3]] += 1
        expected = (clean * 255).round().flatten().double() + change.sign() * levels
        assert torch.equal((got * 255).round().flatten().double(), expected)
        assert float(torch.linalg.vector_norm((got - clean).flatten().double(), ord=order)) <= eps + 1e-6


def test_settling_gives_the_weakest_rounding_along_the_change_that_holds():
    """On the lattice, reaching the goal, and each channel within a level of the change itself."""
    for aim in (False, True):
        problem = Problem(aim)
        made, access = problem.run(make("ddn", steps=40))
        image = made.images
        assert torch.allclose((image * 255).round() / 255, image, atol=1e-6)
        for row, x, goal in problem.each():
            assert problem.fell(goal, image[row].double())
            far = x + 3 * (image[row].double() - x)
            held = settle(problem.access(), x[None].float(), far[None].clamp(0, 1).float(), torch.tensor([row]))[0]
            assert float(((held.double() - far.clamp(0, 1)) * 255).abs().max()) <= 1 + 1e-3
            assert problem.fell(goal, held.double())
        del access


def test_settling_goes_a_little_further_where_rounding_alone_undoes_the_success():
    """A change just short of the boundary: only its longer versions reach the goal, and the first of them is taken."""
    problem = Problem()
    for row, x, goal in problem.each():
        made, _ = problem.run(make("ddn", steps=60))
        way = made.images[row].double() - x
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if problem.fell(goal, x + middle * way) else (middle, high)
        for scale, most in ((1 / 1.04, 1.06), (1 / 1.3, 1.6)):
            near = (x + scale * low * way)[None].float()
            held = settle(problem.access(), x[None].float(), near, torch.tensor([row]))[0].double()
            assert problem.fell(goal, held)
            levels = ((held - x) * 255).abs() - most * scale * low * (way * 255).abs()
            assert float(levels.max()) < 1
        still = settle(problem.access(), x[None].float(), x[None].float(), torch.tensor([row]))[0]
        assert torch.equal(still.double(), x.float().double())
        spent = problem.access(budget=Budget(forwards=0))
        strong = settle(
            spent, x[None].float(), (x + 0.4 / 255 * way.sign()).clamp(0, 1)[None].float(), torch.tensor([row])
        )
        assert torch.equal((strong[0] * 255).round(), ((x * 255).round() + way.sign()).clamp(0, 255).float())


# Counting


def test_a_ledger_is_a_loop_over_questions():
    rng = np.random.default_rng(0)
    for limits in ({}, {"forwards": 9}, {"backwards": 7}, {"forwards": 9, "backwards": 7}):
        ledger = Ledger(4, Budget(**limits))
        forwards, backwards, first = [0] * 4, [0] * 4, [-1] * 4
        for _ in range(12):
            rows = rng.integers(0, 4, rng.integers(1, 6))
            one, many, hit = int(rng.integers(0, 2)), int(rng.integers(0, 3)), rng.random(len(rows)) < 0.2
            allowed, before = [], (list(forwards), list(backwards))
            ranks = [sum(rows[:i] == row) for i, row in enumerate(rows)]
            for row, rank in zip(rows, ranks, strict=True):
                fine = not one or before[0][row] + rank < limits.get("forwards", math.inf)
                fine &= not many or before[1][row] + many * (rank + 1) <= limits.get("backwards", math.inf)
                allowed.append(bool(fine))
            told = ledger.admit(torch.from_numpy(rows), forwards=one, backwards=many)
            assert ([True] * len(rows) if told is None else told.tolist()) == allowed
            asked = [row for row, fine in zip(rows, allowed, strict=True) if fine]
            for row, fine, fell in zip(rows, allowed, hit, strict=True):
                if fine:
                    forwards[row] += one
                    backwards[row] += many
                    if one and fell and first[row] < 0:
                        first[row] = forwards[row]
            if one:
                reached = torch.tensor([bool(fell) for fell, fine in zip(hit, allowed, strict=True) if fine])
                ledger.hits(torch.tensor(asked, dtype=torch.long), reached)
            assert ledger.forwards.tolist() == forwards
            assert ledger.backwards.tolist() == backwards
            assert ledger.first_hit.tolist() == first
            spent = [forwards[row] >= limits.get("forwards", math.inf) for row in range(4)]
            assert ledger.spent(torch.arange(4)).tolist() == spent
    with pytest.raises(InvalidInput, match="forwards must be 0 or more"):
        Budget(forwards=-1)


def test_a_clock_tells_what_was_done_and_guesses_what_is_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("heatprint.attacks.ledger.time.monotonic", lambda: now[0])
    clock, ledger = Clock(10), Ledger(4)
    assert clock.due()
    assert not clock.due()
    now[0] += 0.5
    assert clock.due()
    assert not clock.due(1.0)
    assert clock.tally().seconds_left is None
    ledger.admit(torch.tensor([0, 1, 1]), backwards=2)
    ledger.hits(torch.tensor([0, 1, 1]), torch.tensor([False, False, True]))
    now[0] = 104.0
    tally = clock.tally(ledger)
    assert (tally.attempted, tally.active, tally.succeeded, tally.given_up) == (10, 9, 1, 0)
    assert (tally.forwards, tally.backwards, tally.per_second) == (3, 6, 0.75)
    assert tally.seconds_left == 4 / 1 * 9
    clock.close(ledger)
    clock.done = 4
    tally = clock.tally(Ledger(4))
    assert (tally.active, tally.succeeded, tally.given_up, tally.forwards) == (6, 1, 3, 3)
    assert tally.seconds_left == 4 / 4 * 6
    both = Spent(attempted=1, succeeded=2, forwards=3, backwards=4) + Spent(attempted=10, forwards=30)
    assert both == Spent(attempted=11, succeeded=2, forwards=33, backwards=4)
    after = tally.after(Spent(attempted=5, succeeded=2, forwards=7, backwards=1), waiting=20)
    assert after == Tally(attempted=35, active=26, succeeded=3, given_up=6, forwards=10, backwards=7,
                          per_second=tally.per_second, seconds_left=None)  # fmt: skip


def test_lengths_of_shrunk_changes_are_the_share_asked_for():
    change = torch.randn((4, 3, 2, 2), generator=torch.Generator().manual_seed(0))
    share = torch.tensor([0.0, 0.3, 0.9, 1.0])
    for norm in ("l2", "linf"):
        shrunk = decision.shrink(change, norm, share)
        assert torch.allclose(length(shrunk, norm), share * length(change, norm), atol=1e-6)
        assert ((shrunk * change) >= 0).all()
    assert torch.equal(decision.shrink(change, "linf", share)[3], change[3])
