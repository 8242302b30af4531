"""The client's node: what other threads do to it while it spins."""

import sys
import threading
from contextlib import closing

import pytest
from std_msgs.msg import String
from std_srvs.srv import Trigger

from moe_client.errors import Unavailable
from moe_client.ros.graph import Graph


def test_it_outlives_subscriptions_that_other_threads_destroy():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads meet in every place
    graph, other = Graph(), Graph()
    try:
        stop = threading.Event()
        publisher = other.node.create_publisher(String, '/moe/said', 10)

        def publish():
            while not stop.wait(0.001):
                publisher.publish(String(data='again'))

        def look():
            for _ in range(100):
                with graph.listening(String, 'said', lambda _message: None):
                    stop.wait(0.0005)
        threads = [threading.Thread(target=look) for _ in range(4)]
        speaker = threading.Thread(target=publish)
        for thread in (*threads, speaker):
            thread.start()
        for thread in threads:
            thread.join()
        assert graph.latest(String, 'said', timeout_s=10.0).data == 'again'
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        speaker.join()
        graph.close()
        other.close()


def test_who_has_just_come_waits_for_its_discovery_before_it_calls_a_server_away():
    with closing(Graph(ready_timeout_s=0.1, discovery_s=30.0)) as newcomer, \
            closing(Graph(ready_timeout_s=0.1)) as resident:
        with pytest.raises(Unavailable):
            resident.call(Trigger, 'late', Trigger.Request())
        server = Graph()
        timer = threading.Timer(1.0, lambda: server.node.create_service(
            Trigger, 'late', lambda _request, response: Trigger.Response(success=True)))
        with closing(server):
            timer.start()
            assert newcomer.call(Trigger, 'late', Trigger.Request(), timeout_s=25.0).success
