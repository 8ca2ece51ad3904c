"""Which of their columns and cameras is which of ours: by name, never by position.

What the names do not settle is asked for, all at once, with what there is to choose from; the user
answers with `--map OURS=THEIRS`.
"""

from __future__ import annotations

from collections.abc import Mapping as Names
from collections.abc import Sequence
from dataclasses import dataclass, field

from qt_ros.contract import ActionDim, Camera, Contract
from qt_ros.lerobot.errors import SourceError
from qt_ros.lerobot.info import IMAGES, Feature, SetInfo
from qt_ros.lerobot.names import find, identifier, plain

STATE, ACTION = 'observation.state', 'action'


@dataclass(frozen=True)
class Column:
    """One number of a row."""

    feature: str
    index: int
    name: str


@dataclass(frozen=True)
class Mapping:
    """Where everything that a contract asks for stands in the set."""

    cameras: dict[str, str]  # camera -> feature
    state: tuple[Column, ...]  # in the order of contract.state_names
    action: tuple[Column | None, ...]  # of contract.action_dims; None: from the next state

    @property
    def features(self) -> tuple[str, ...]:
        """Return the features that hold state and action."""
        columns = [*self.state, *(column for column in self.action if column is not None)]
        return tuple(dict.fromkeys(column.feature for column in columns))

    def to_dict(self, contract: Contract) -> dict[str, dict[str, str]]:
        """Return the mapping for people and scripts, {what: {ours: theirs}}."""
        dims = zip(contract.action_dims, self.action, strict=True)
        return {
            'cameras': dict(self.cameras),
            'state': {
                name: f'{column.feature}.{column.name}'
                for name, column in zip(contract.state_names, self.state, strict=True)
            },
            'action': {
                dim.name: f'{column.feature}.{column.name}' if column else 'next state'
                for dim, column in dims
            },
        }


def parse_names(given: Sequence[str]) -> dict[str, str]:
    """Return {OURS: THEIRS} of `--map` arguments; `SourceError` names all that are no pair."""
    found: dict[str, str] = {}
    problems = []
    for text in given:
        ours, _, theirs = text.partition('=')
        if not ours or not theirs:
            problems.append(f'--map {text}: OURS=THEIRS is needed, e.g. front={IMAGES}top')
        elif found.setdefault(ours, theirs) != theirs:
            problems.append(f'--map gives {ours} twice: {found[ours]} and {theirs}')
    if problems:
        raise SourceError(problems)
    return found


def match(
    contract: Contract, info: SetInfo, names: Names[str, str], own: Contract | None = None
) -> Mapping:
    """Find everything that `contract` asks for; `SourceError` lists all that is not there.

    `names` are {OURS: THEIRS} of the user: OURS is a camera, a state entry (FIELD or STREAM.FIELD)
    or an action dimension, with 'camera:', 'state:' or 'action:' before it where two share a name.
    `own`: the contract that the set was made with, if qt-ros made it; its actions are then taken
    as they stand even where `contract` derives them from the next state.
    """
    return _Matcher(contract, info, names).match(own)


@dataclass
class _Matcher:
    contract: Contract
    info: SetInfo
    names: Names[str, str]
    problems: list[str] = field(default_factory=list)

    def match(self, own: Contract | None) -> Mapping:
        self._check_names()
        cameras = {each.name: self._camera(each) for each in self.contract.cameras}
        entries = [(s.name, f) for s in self.contract.state for f in s.fields]
        state = [self._entry(stream, text) for stream, text in entries]
        kept = {dim.name for dim in own.action_dims} if own else set()
        action = [
            self._dim(dim) if topic.source == 'command' or dim.name in kept else None
            for topic in self.contract.action
            for dim in topic.dims
        ]
        labels = [f'state:{name}' for name in self.contract.state_names]
        self._check_shared(labels, state)
        dims = [dim for dim, column in zip(self.contract.action_dims, action, strict=True)]
        self._check_shared([f'action:{dim.name}' for dim in dims], action)
        if self.problems:
            raise SourceError([*self.problems, *self._there()])
        whole = tuple(column for column in state if column is not None)
        return Mapping(cameras, whole, tuple(action))

    def _check_names(self) -> None:
        """Refuse what `--map` says about things that the contract does not have, or has twice."""
        known: dict[str, set[str]] = {}
        for label in self._labels():
            kind, _, name = label.partition(':')
            known.setdefault(name, set()).add(kind)
            known.setdefault(label, set()).add(kind)
        for ours in self.names:
            kinds = known.get(ours, set())
            if not kinds:
                self.problems.append(
                    f'--map {ours}: the contract has no such thing; it has'
                    f' {", ".join(self._labels())}'
                )
            elif len(kinds) > 1:
                choices = ' or '.join(f'{kind}:{ours}' for kind in sorted(kinds))
                self.problems.append(f'--map {ours} may mean several things: write {choices}')

    def _labels(self) -> list[str]:
        bare = [name for stream in self.contract.state for name in stream.fields]
        return [
            *(f'camera:{camera.name}' for camera in self.contract.cameras),
            *(f'state:{name}' for name in self.contract.state_names),
            *(f'state:{name}' for name in bare if bare.count(name) == 1),
            *(f'action:{dim.name}' for dim in self.contract.action_dims),
        ]

    def _given(self, kind: str, *names: str) -> str | None:
        for name in names:
            for key in (f'{kind}:{name}', name):
                if key in self.names:
                    return self.names[key]
        return None

    # --- cameras ------------------------------------------------------------------------------

    def _camera(self, camera: Camera) -> str:
        there = self.info.cameras
        given = self._given('camera', camera.name)
        if given is not None:
            found = [key for key in there if given in (key, there[key].short)]
        else:
            found = [key for key in there if key == IMAGES + camera.name] or [
                key for key, each in there.items() if identifier(each.short) == camera.name
            ]
        if len(found) != 1:
            why = 'several cameras may be meant' if found else 'the set has no camera of that name'
            self.problems.append(
                f'camera {camera.name}{_as(given)}: {why}: say --map'
                f' {camera.name}={next(iter(there), IMAGES + "NAME")}'
            )
            return ''
        if camera.depth_m is not None and not there[found[0]].depth:
            self.problems.append(
                f'camera {camera.name} has depth_m, but {found[0]} holds colours; leave depth_m'
                ' out of the contract, or map a depth camera'
            )
        return found[0]

    # --- numbers ------------------------------------------------------------------------------

    def _entry(self, stream: str, text: str) -> Column | None:
        full = f'{stream}.{text}'
        bare = [name for each in self.contract.state for name in each.fields]
        names = (full, text) if bare.count(text) == 1 else (full,)
        given = self._given('state', *names)
        return self._column(f'state {full}', given, self._observed(), (full, text), {plain(text)})

    def _dim(self, dim: ActionDim) -> Column | None:
        given = self._given('action', dim.name)
        own_field = [] if dim.field.isdigit() or dim.field == 'data' else [dim.field]
        exact = (dim.name, *own_field)
        wanted = {plain(text) for text in exact}
        if dim.mode == 'velocity':
            wanted |= {('velocity', joint) for _, joint in wanted}
        features = [self.info.features[ACTION]] if ACTION in self.info.features else []
        return self._column(f'action {dim.name}', given, features, exact, wanted)

    def _observed(self) -> list[Feature]:
        """Return the vectors that are observed, observation.state first."""
        found = [
            each
            for key, each in self.info.features.items()
            if key.startswith('observation.') and each.is_vector
        ]
        return sorted(found, key=lambda each: each.key != STATE)

    def _column(
        self,
        what: str,
        given: str | None,
        features: Sequence[Feature],
        exact: tuple[str, ...],
        wanted: set[tuple[str, str]],
    ) -> Column | None:
        if given is not None:
            found = self._named(given, features)
        else:
            found = []
            for feature in features:
                found = [
                    Column(feature.key, index, feature.names[index])
                    for index in find(exact, wanted, feature.names)
                ]
                if found:
                    break
        if len(found) == 1:
            return found[0]
        ours = what.replace(' ', ':', 1)
        if found:
            several = ', '.join(f'{column.feature}.{column.name}' for column in found)
            self.problems.append(f'{what}{_as(given)} may be {several}: say --map {ours}=...')
        else:
            self.problems.append(
                f'{what}{_as(given)}: the set has no column of that name: say --map {ours}=NAME'
            )
        return None

    def _named(self, given: str, features: Sequence[Feature]) -> list[Column]:
        """Return the columns called NAME in `features`, or FEATURE.NAME anywhere."""
        for feature in features:
            found = [at for at, name in enumerate(feature.names) if name == given]
            if found:
                return [Column(feature.key, at, given) for at in found]
        return [
            Column(key, at, name)
            for key, feature in self.info.features.items()
            if feature.is_vector
            for at, name in enumerate(feature.names)
            if given == f'{key}.{name}' or (given == key and len(feature.names) == 1)
        ]

    def _check_shared(self, ours: Sequence[str], columns: Sequence[Column | None]) -> None:
        """Refuse one of their numbers as two of ours, unless the user said so."""
        users: dict[Column, list[str]] = {}
        for name, column in zip(ours, columns, strict=True):
            kind, _, bare = name.partition(':')
            if column is not None and self._given(kind, bare) is None:
                users.setdefault(column, []).append(name)
        for column, names in users.items():
            if len(names) > 1:
                self.problems.append(
                    f'{column.feature}.{column.name} fits {" and ".join(names)}: say which is'
                    f' which with --map {names[0]}=..., --map {names[1]}=...'
                )

    def _there(self) -> list[str]:
        """Say what the set has, for whoever has to choose."""
        vectors = self._observed()
        if ACTION in self.info.features:
            vectors.append(self.info.features[ACTION])
        cameras = ', '.join(self.info.cameras) or 'none'
        return [
            f'there are the cameras {cameras}',
            *(
                f'{each.key} holds {", ".join(each.names)}'
                + ('' if each.named else ' (the set names nothing: these are positions)')
                for each in vectors
            ),
        ]


def _as(given: str | None) -> str:
    return '' if given is None else f' (given as {given})'
