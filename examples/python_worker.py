"""A worker in Python for clients of rpcache: whole square roots, from the queue rpc_queue.isqrt.

    python3 examples/python_worker.py AMQP_URL

It is RabbitMQ's tutorial six with another function: the body of a request is the argument's text, the
body of the reply is the answer's, and the correlation id is copied. Needs pika and nothing of rpcache.
The client in `foreign_worker.rs` verifies what is answered here, and stores it in Redis.
"""

import math
import sys

import pika

QUEUE = "rpc_queue.isqrt"


def answer(body):
    """The reply's body and headers."""
    try:
        return str(math.isqrt(int(body))), {}
    except ValueError:
        # Optional: without this header a caller can but wait until its time is up.
        return "error: not a whole number from 0 on", {"x-rpcache-error": "bad-argument"}


def on_request(channel, method, properties, body):
    text, headers = answer(body)
    # Whoever may send requests can name any queue here: only callback queues are replied to.
    if (properties.reply_to or "").startswith("amq."):
        channel.basic_publish(
            exchange="",
            routing_key=properties.reply_to,
            properties=pika.BasicProperties(
                correlation_id=properties.correlation_id, headers=headers
            ),
            body=text,
        )
    # Last: the request of a worker that dies before goes to another one.
    channel.basic_ack(delivery_tag=method.delivery_tag)


def main():
    (url,) = sys.argv[1:]
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    # As rpcache's own workers and the tutorials declare it: both can serve one queue.
    channel.queue_declare(queue=QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue=QUEUE, on_message_callback=on_request)
    try:
        channel.start_consuming()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
