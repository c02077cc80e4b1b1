"""A caller in the pattern of RabbitMQ's tutorial six, with pika alone.

    rpc_client.py AMQP_URL N...

Prints one answer a line. Like the tutorial's, it has an exclusive callback queue, one request
in flight and no time-out.
"""

import sys
import uuid

import pika


class FibonacciClient:
    def __init__(self, url):
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        declared = self.channel.queue_declare(queue="", exclusive=True)
        self.callback_queue = declared.method.queue
        self.channel.basic_consume(
            queue=self.callback_queue, on_message_callback=self.on_response, auto_ack=True
        )
        self.correlation_id = None
        self.response = None

    def on_response(self, _channel, _method, properties, body):
        if properties.correlation_id == self.correlation_id:
            self.response = body

    def call(self, n):
        self.response = None
        self.correlation_id = str(uuid.uuid4())
        self.channel.basic_publish(
            exchange="",
            routing_key="rpc_queue",
            properties=pika.BasicProperties(
                reply_to=self.callback_queue, correlation_id=self.correlation_id
            ),
            body=str(n),
        )
        while self.response is None:
            self.connection.process_data_events(time_limit=None)
        return self.response.decode()


def main():
    url, *numbers = sys.argv[1:]
    client = FibonacciClient(url)
    for n in numbers:
        print(client.call(n), flush=True)
    client.connection.close()


if __name__ == "__main__":
    main()
