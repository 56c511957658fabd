/** The current time in UTC seconds, once a second, for everything that says "3 min ago". */

class Clock {
  now = $state(Date.now() / 1000);

  constructor() {
    const tick = () => {
      if (!document.hidden) this.now = Date.now() / 1000;
    };
    setInterval(tick, 1000);
    document.addEventListener("visibilitychange", tick);
  }
}

export const clock = new Clock();
