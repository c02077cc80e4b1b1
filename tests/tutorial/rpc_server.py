"""A Fibonacci worker in the pattern of RabbitMQ's tutorial six, with pika alone.

    rpc_server.py AMQP_URL quorum|classic

`quorum` declares the queue as the tutorials do since 2026, `classic` as they did before.
"""

import sys

import pika


def fib(n):
    """Additions, so that nothing overflows and nothing recurses."""
    this, following = 0, 1
    for _ in range(n):
        this, following = following, this + following
    return this


def on_request(channel, method, properties, body):
    answer = str(fib(int(body)))
    channel.basic_publish(
        exchange="",
        routing_key=properties.reply_to,
        properties=pika.BasicProperties(correlation_id=properties.correlation_id),
        body=answer,
    )
    channel.basic_ack(delivery_tag=method.delivery_tag)


def main():
    url, kind = sys.argv[1:]
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    if kind == "quorum":
        channel.queue_declare(
            queue="rpc_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
    else:
        channel.queue_declare(queue="rpc_queue")
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue="rpc_queue", on_message_callback=on_request)
    channel.start_consuming()


if __name__ == "__main__":
    main()
