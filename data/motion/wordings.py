"""Hand-written wordings of motion requests; {d} direction, {n} angle, {j} joint, {a} {b} steps, {v} raise or lower."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wordings:
    """Frames by what they ask for."""

    relative: tuple[str, ...]
    vertical: tuple[str, ...]
    plain: tuple[str, ...]
    little: tuple[str, ...]
    far: tuple[str, ...]
    absolute: tuple[str, ...]
    sequence: tuple[str, ...]
    center: tuple[str, ...]
    stop: tuple[str, ...]
    unclear: tuple[str, ...]
    unsafe: tuple[str, ...]


TRAIN = Wordings(
    relative=(
        'Look {d} {n}.', 'Look {n} {d}.', 'Turn {d} by {n}.', 'Turn {n} to the {d}.', 'Move {d} {n}.',
        'Move your head {n} {d}.', 'Rotate {d} {n}.', 'Rotate the head {n} {d}.', 'Please look {n} to the {d}.',
        'Could you turn {d} {n}?', 'Can you look {d} by {n}?', 'Swivel {d} {n}.', 'Swing the camera {n} {d}.',
        'Point the camera {n} further {d}.', 'Face {n} {d}.', 'Go {n} {d}.', 'Go {d} by {n}.', 'Shift your view {d} {n}.',
        'Shift {n} {d}, please.', 'Aim {n} more to the {d}.', '{n} {d}', '{d} {n}', '{n} to the {d}', 'a turn of {n} {d}',
        'I want you to look {d} {n}.', 'Now {n} {d}.', 'Head {d}, {n}.', 'Robot, turn {n} {d}.', 'robot look {d} {n}',
        'Would you mind turning {n} {d}?', 'Glance {n} to the {d}.', 'Turn the head {d} about {n}.', 'turn {n} {d} pls',
        'Move the camera {d} by {n}.', 'Adjust the head {n} {d}.', 'You should look {n} {d}.', 'Change your view {n} {d}.',
    ),
    vertical=(
        '{v} your head {n}.', '{v} the camera by {n}.', '{v} your gaze {n}.', 'Please {v} the head {n}.',
        'Can you {v} your view by {n}?', 'tilt: {v} it {n}', '{v} it {n}',
        'Could you {v} your head {n}?', 'I want you to {v} the camera {n}.', 'Would you please {v} the gaze by {n}?',
        '{v} the view {n}, please.', '{v} the lens by {n}'),
    plain=(
        'Look {d}.', 'Turn {d}.', 'Look to the {d}.', 'Please turn {d}.', 'Can you look {d}?', 'Move your head {d}.',
        'Move {d}.', '{d}', 'Rotate {d}.', 'Turn your head to the {d}.', 'Robot, look {d}!', 'Point the camera {d}.',
        'Face {d}.', 'Go {d}.', 'I want you to turn {d}.', 'Swivel {d}.', 'Glance {d}.', 'look {d} please',
        'Show me what is {d}.', 'Check your {d}.', 'Look over to your {d}.', 'Bring the camera {d}.', 'See what is going on {d}.',
        'Have the camera face {d}.', 'Could you please look {d}?', 'Let me see {d}.', 'Peek {d}.', 'Your head {d}, please.',
        'Send the camera {d}.', 'Give a look {d}.', 'Watch {d}.', 'Now {d}.', 'Turn your eyes {d}.', 'Aim {d}.',
        'Shift your view {d}.', 'Would you turn {d}?', 'The other way, {d}.', 'There is something {d}, look.'),
    little=(
        'Look a bit {d}.', 'Look slightly {d}.', 'Turn a little {d}.', 'Move your head a little to the {d}.',
        'A bit more {d}.', 'slightly {d}', 'Just a little {d}, please.', 'Turn a bit to the {d}.', 'a tiny bit {d}',
        'Could you look a little {d}?', 'Rotate slightly to the {d}.',
        'Move a touch {d}.', 'Go a little {d}.', 'Shift your view a bit {d}.', 'Aim slightly more {d}.', 'Swivel a little {d}.',
        'Tiny step {d}.', 'Would you turn a bit {d}?', 'Bring the camera a little {d}.'),
    far=(
        'Look far {d}.', 'Turn far to the {d}.', 'Look all the way {d}.', 'Turn {d} a lot.', 'Move your head far {d}.',
        'way {d}', 'Go far {d}.', 'Look a lot more {d}.', 'Turn hard {d}.', 'Rotate far {d}, please.',
        'Could you look far {d}?', 'Look very far to the {d}.', 'far to the {d}',
        'Move far {d}.', 'Bring the camera far {d}.', 'Swivel a lot {d}.', 'Would you turn far {d}?', 'Aim much more {d}.',
        'Shift your view far {d}.', 'Much further {d}.', 'A lot {d}.', 'Point the head far {d}.'),
    absolute=(
        'Set {j} to {n}.', 'Move {j} to {n}.', '{j} to {n}', 'Set the {j} position to {n}.', 'Put {j} at {n}.',
        'Drive {j} to {n}.', '{j} position {n}', 'Please set {j} to {n}.', 'Move the {j} joint to {n}.',
        'Go to {j} {n}.', 'Bring {j} to {n}.', 'I want {j} at {n}.', 'Can you set {j} to {n}?', '{j} = {n}'),
    sequence=(
        'Look {a}, then {b}.', 'Look {a} and then {b}.', 'Turn {a} and {b}.', 'First look {a}, then {b}.',
        'Move {a}, then {b}.', '{a} then {b}', 'Please turn {a} and after that {b}.', 'Go {a}, then go {b}.',
        'Look {a} and {b}.', 'Turn {a}, next {b}.', 'Can you look {a} and then {b}?', '{a}, {b}',
        'Once you looked {a}, look {b}.', 'Move {a} before you move {b}.', 'Turn {a}. Then turn {b}.', 'Step one {a}, step two {b}.',
        'First {a}, second {b}.', 'Go {a} and next {b}.', 'Would you turn {a}, then {b}?', 'Look {a}, later {b}.',
        'Rotate {a}; then {b}.', 'Swing {a} and after it {b}.', 'At first {a}, in the end {b}.', '{a}, afterwards {b}',
        'Start with {a}, continue with {b}.', 'Do a move {a} and a move {b}.'),
    center=(
        'Look straight ahead.', 'Center the head.', 'Look forward.', 'Go back to the center.', 'Center yourself.',
        'Face the front.', 'Go to the home position.', 'Return to the middle.', 'center', 'Look straight.', 'Go home.',
        'Look to the front again.', 'Please center the camera.', 'Turn back to the middle.', 'Reset your head position.',
        'Straighten your head.', 'look ahead', 'Back to center.', 'Move the head to neutral.', 'home position please',
        'Head straight.', 'Can you face forward?', 'front', 'eyes forward', 'Take the neutral position.', 'recenter',
        'Move back to zero.', 'Return home.', 'Robot, look ahead!', 'Point the camera straight ahead.',
        'Align with the center.', 'Align the head with the body.', 'Straight on.', 'Middle, please.', 'Eyes to the front.',
        'Face ahead.', 'Back to the middle position.', 'Aim ahead.', 'Straight forward.', 'Go to the middle.',
        'Line the head up with the body.', 'zero position', 'Look to where the front is.', 'Set everything to zero.',
        'Get the head back to the center.', 'I would like the head centered.', 'Bring the camera back to the front.',
        'Get to the neutral position.', 'Would you face forward?', 'Let us look ahead.', 'Be straight again.',
        'Head to the center please.', 'Put the camera in the middle.', 'Face straight on again.', 'Take your head home.',
        'Align yourself with the middle.', 'Aim for the center.', 'Bring it back to the middle.', 'Return your head to the front.',
        'I need you to look ahead.', 'Your head belongs in the middle.', 'Set the head straight.'),
    stop=(
        'Stop.', 'Stop moving.', 'Freeze!', 'Halt.', "Don't move.", 'Stop right there.', 'Hold still.', 'Stop now!',
        'Please stop.', 'Stay where you are.', 'Hold it.', 'stop the head', 'No more movement.', 'Stop turning.',
        'Robot, stop!', 'Hold your position.', 'Enough, stop.', 'Stop the motion.', 'keep still', 'Do not move.'),
    unclear=(
        'Move a bit.', 'Turn somewhere.', 'Wiggle.', 'Move your head.', 'Do something with your head.', 'Turn.', 'Rotate.',
        'Look over there.', 'Move around.', 'Turn the other thing.', 'Move it.', 'Look at that.', 'Turn {n}.',
        'Move by {n}.', 'Rotate {n}.', 'Go somewhere else.', 'look', 'Move {n}.', 'Change position.',
        'Turn around a little.', 'Will you move?', 'Make a move.', 'Turn a little.', 'Shift.', 'Shift a bit.',
        'Show me a motion.', 'Point the head.', 'Change the angle by {n}.', 'Adjust it by {n}.', 'Rotate the head {n}.',
        'Swivel {n}.', 'Look elsewhere.', 'Please move.', 'move the camera', 'Rotate slightly.', 'Turn your head.',
        'Go {n}.', 'Look {n}.', 'Move a little.', 'Take a different pose.',
        'Could you turn?', 'Turn something.', 'Can you move something?', 'Try a different position.', 'Choose another angle.',
        'Tilt and so on.', 'Look at something else.', 'Rotate by {n}.', 'Pan by some angle.', 'Make it move.', 'Swing by {n}.',
        'Would you move?', 'Do move.', 'Shift your view.', 'Change your view by {n}.', 'Turn by some degrees.', 'Bend a bit.',
        'Please rotate somewhat.'),
    unsafe=(
        'Spin around.', 'Rotate all the way around.', 'Turn a full circle.', 'Spin as fast as you can.',
        'Look behind you.', 'Turn your head completely around.', 'Spin in circles.', 'Do a full rotation.',
        'Make a complete turn.', 'Whirl around.', 'Turn until something breaks.', 'Twist your head off.',
        'Go around in circles.', 'Turn all the way round.', 'Look backwards.', 'Look straight back.', 'Turn to your back.',
        'Keep spinning.', 'Rotate without end.', 'Turn the head backwards.', 'Make one whole rotation.', 'Spin forever.',
        'Face what is behind you.', 'Go around once.', 'Circle all around.',
        'Round and round you go.', 'Whirl in circles.', 'Turn around completely.', 'Make circles.', 'See what is behind your back.',
        'Rotate fully.', 'One full circle.', 'Look behind.'),
)

HELDOUT = Wordings(
    relative=(
        'I would like your head {n} further {d}.', 'Try looking {n} {d}.', 'Give me {n} {d}.', 'Let us see what is {n} {d}.',
        'Angle yourself {n} to the {d}.', 'Make it {n} {d}.', 'Have a look {n} to the {d}.', 'Pivot {d} {n}.',
        'Take the camera {n} {d}.', 'Direct your eyes {n} {d}.', 'The head should go {d} by {n}.', 'Steer {n} {d}.',
        'May I ask you to look {d} {n}?', 'View {n} {d}, thanks.', 'Hey, {n} {d} for me.', 'Nudge the head {d} {n}.'),
    vertical=('Would you {v} the view {n}?', 'I need you to {v} your head {n}.', 'Now {v} your eyes by {n}.'),
    plain=(
        'Have a look {d}.', 'Try looking {d}.', 'Direct your eyes {d}.', 'What is on your {d}? Look there.',
        'Pivot {d}.', 'Let us see what is {d}.', 'Would you look {d} for me?', 'Take the camera {d}.'),
    little=(
        'Nudge the head {d} a little.', 'Try looking slightly {d}.', 'Only a bit {d}, thanks.',
        'Would you look a little more {d}?', 'Pivot slightly {d}.'),
    far=('Try looking far {d}.', 'Pivot a lot {d}.', 'Take the camera far {d}.', 'Would you look far to the {d}?'),
    absolute=(
        'The {j} angle should be {n}.', 'Let {j} go to {n}.', 'Position {j} at {n}.', 'Have {j} at {n}.',
        'Turn {j} until it is at {n}.', 'Make {j} equal to {n}.', 'Take {j} to {n}.'),
    sequence=(
        'Begin with {a}, then do {b}.', 'Go {a}; afterwards {b}.', 'I want {a} and then {b}.', 'Do {a} followed by {b}.',
        'Start {a}, finish {b}.', 'Try {a} first and {b} second.'),
    center=(
        'Bring the head back to the middle.', 'Let us look to the front again.', 'Put your head straight.',
        'Take the camera home.', 'Would you look straight ahead for me?', 'Face front again please.',
        'I want the head in the center.', 'Get back to neutral.', 'Line up with the middle.', 'Aim straight forward.'),
    stop=(
        'Stop it now please.', 'Everything stop.', 'Would you hold still?', 'I said stop.', 'Quit moving.',
        'Stop at once.', 'Stay still.', 'Hey, freeze right there.', 'Motion stop.'),
    unclear=(
        'Could you move?', 'Move something.', 'Please turn a bit.', 'Try another position.', 'Look somewhere else.',
        'Turn by {n}.', 'Rotate a little.', 'Shift by {n}.'),
    unsafe=(
        'Spin round and round.', 'Turn in a full circle, please.', 'Go all the way around.',
        'Look straight behind yourself.', 'Rotate completely.'),
)
