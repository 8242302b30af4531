"""The client's node: what other threads do to it while it spins."""

import sys
import threading

from std_msgs.msg import String

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
