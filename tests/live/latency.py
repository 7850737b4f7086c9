"""A provider far away: a proxy that gives every byte a way to go, and so every request a round trip. Throughput stays as it is."""

import asyncio
import threading

from servers import free_port


class Distance:
    """Listens on a free port and passes everything on to a port of this machine. `seconds` is a whole round trip and may change."""

    def __init__(self, target, seconds=0.0):
        self.port, self.target, self.seconds = free_port(), target, seconds
        self.loop, ready = asyncio.new_event_loop(), threading.Event()
        self.thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self.thread.start()
        ready.wait(10)

    def _run(self, ready):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", self.port))
        ready.set()
        self.loop.run_forever()

    async def _connection(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._way(reader, far_writer), self._way(far_reader, writer))

    async def _way(self, reader, writer):
        """One direction: what is read now is written half a round trip later, in order."""
        queue = asyncio.Queue()

        async def write():
            while True:
                due, piece = await queue.get()
                await asyncio.sleep(max(0.0, due - self.loop.time()))
                if not piece:
                    return
                writer.write(piece)
                await writer.drain()
        writing = asyncio.ensure_future(write())
        try:
            piece = b"-"
            while piece:
                piece = await reader.read(1 << 16)
                queue.put_nowait((self.loop.time() + self.seconds / 2, piece))
            await writing
        except OSError:
            writing.cancel()
        finally:
            writer.close()

    def close(self):
        """Ends it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
