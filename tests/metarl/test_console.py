"""The time left in a phase that counts, and what counts as one request to stop."""

from metarl.experiment.console import PhaseClock, StopCounter


class Time:
    now = 100.0

    def __call__(self):
        return self.now


def test_time_left_is_that_of_the_steps_to_come():
    time = Time()
    clock = PhaseClock(time)
    assert clock.time_left("meta-step 1/30") == ""
    time.now += 10.0
    # one step took ten seconds, twenty-nine are left, this one included
    assert clock.time_left("meta-step 2/30") == " (4:50 left)"
    time.now += 10.0
    assert clock.time_left("meta-step 3/30") == " (4:40 left)"


def test_another_phase_begins_anew():
    time = Time()
    clock = PhaseClock(time)
    for phase in ("epoch 1/5, loss 0.5", "epoch 2/5, loss 0.25"):
        shown = clock.time_left(phase)
        time.now += 1.0
    assert shown == " (0:04 left)"
    assert clock.time_left("real evaluation") == ""
    assert clock.time_left("epoch 1/5, loss 0.5") == ""
    time.now += 2.0
    assert clock.time_left("epoch 2/5, loss 0.5") == " (0:08 left)"


def test_the_same_phase_in_the_next_iteration_begins_anew():
    time = Time()
    clock = PhaseClock(time)
    clock.time_left("meta-step 1/2")
    time.now += 50.0
    clock.time_left("meta-step 2/2")
    time.now += 50.0
    assert clock.time_left("meta-step 1/2") == ""


def test_signals_within_a_second_are_one_request():
    time = Time()
    requests = StopCounter(time)
    assert requests.receive()
    time.now += 0.9
    assert not requests.receive()
    time.now += 0.2  # measured from the first
    assert requests.receive()
    assert requests.count == 2
